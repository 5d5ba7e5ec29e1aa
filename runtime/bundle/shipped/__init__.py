"""Bundles that travel with the package."""
