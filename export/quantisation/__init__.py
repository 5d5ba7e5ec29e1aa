"""Graphs in 8 bits: what is quantised, by which images, and what it costs."""
