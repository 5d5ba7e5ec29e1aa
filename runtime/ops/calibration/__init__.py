"""Thresholds from good frames alone, with a bound on false alarms that holds for few frames too."""
