"""Table 3: rows that are trained one part after the other, and measured."""
