"""Anomaly-detection datasets in the layouts that people download them in. Needs numpy and OpenCV, never torch."""
