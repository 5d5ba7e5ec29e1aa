"""What a benchmark runs: a bundle on each engine, and its model in torch."""
