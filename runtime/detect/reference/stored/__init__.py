"""Memories as files: in a bundle, with those before them, and as a detector reads them."""
