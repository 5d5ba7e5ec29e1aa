"""A run, to whoever watches over it and changes it while it goes on."""
