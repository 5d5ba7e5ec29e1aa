"""The machine under the benchmark: what it is, what it could do at best, what it draws, and whether it was quiet."""
