"""Text features: the text tower, and the prompts of the two states."""
