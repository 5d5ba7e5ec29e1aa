"""Frames from network cameras, and what happens when one goes away."""
