"""The reference memory: what a class's good frames look like, as descriptors that new frames are compared with."""
