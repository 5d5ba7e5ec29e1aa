"""Learning a part: from good frames to a reference memory with its thresholds, and to what it is good for."""
