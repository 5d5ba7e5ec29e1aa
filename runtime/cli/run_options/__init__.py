"""The options of `kanoclip-run`, by group."""
