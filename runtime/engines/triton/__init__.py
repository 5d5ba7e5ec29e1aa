"""A model on a Triton server."""
