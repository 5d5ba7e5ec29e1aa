"""A benchmark's result for people: terminal, Markdown and one HTML page."""
