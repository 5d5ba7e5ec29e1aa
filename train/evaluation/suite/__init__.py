"""The paper's tables in one command: twelve datasets, their roots in a file."""
