"""The embedded model `nano`: generated pictures to learn from, and the recipe."""
