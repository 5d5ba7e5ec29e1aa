"""Example pictures with masks; see README.md beside this file."""
