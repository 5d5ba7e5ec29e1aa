"""Annotated images: regions, heat map, and their encoding."""
