"""A bundle with references: how they are drawn, what they are worth, and the options of it."""
