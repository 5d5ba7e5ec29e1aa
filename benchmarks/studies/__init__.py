"""Measurements that anyone can rerun; each module prints a table and can write JSON to benchmarks/results/."""
