"""What a person teaches a stream that runs: corrections of verdicts, and lessons from the next frames."""
