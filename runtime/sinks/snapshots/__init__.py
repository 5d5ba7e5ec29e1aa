"""Anomalous frames on disk, in a folder of bounded size."""
