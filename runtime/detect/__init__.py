"""Frame to Detection, and what decides it: preprocessing, thresholds, regions, alarm."""
