"""Evaluation of checkpoints and bundles on datasets: the tables of the paper."""
