"""Reads a weights file: its tensors, whose names they have, which model they fit."""
