"""What the shipped models and their baselines find, and what changes it."""
