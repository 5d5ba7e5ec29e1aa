"""Commands that fit a bundle to a line: by good frames alone, and without any training."""
