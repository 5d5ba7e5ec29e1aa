"""Frames from disk: images, watched folders, video files."""
