"""What the operating system and the process give: paths, memory, hardware, signals, network names."""
