"""What verdicts are decided by: the settings, the files that hold them, and what was chosen while a stream ran."""
