"""Files that several processes, or a command and its own source, might get in each other's way with."""
