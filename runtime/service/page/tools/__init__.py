"""What an engineer does with the page beside watching: regions, counters, the gallery's export, sources."""
