"""The embedded model `nano`: generated images to learn from, and the recipe."""
