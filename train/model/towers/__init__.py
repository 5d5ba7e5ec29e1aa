"""The image tower with the local-aware path, and what it asks of the towers that people have."""
