"""The forms in which datasets lie on disk, each with its reader."""
