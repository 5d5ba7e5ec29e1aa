"""Scores any number of images into one table: on one machine or on a Ray cluster, and goes on where it was killed."""
