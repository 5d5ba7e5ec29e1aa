"""Teaching: learning from the next frames, corrections of verdicts, their labelled set, and the trade-off."""
