"""The files that weights come in: what holds the tensors, and what the tensors are called."""
