"""Scores any number of pictures into one table: on one machine or on a Ray cluster, and goes on where it was killed."""
