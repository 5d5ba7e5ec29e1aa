"""`kanoclip-train`: options, what they are checked for, what is read before the first step, the run."""
