"""The bundle's manifest: what the graph is, how to feed it, what it was made from."""
