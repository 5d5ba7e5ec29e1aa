"""Example images with masks; see README.md beside this file."""
