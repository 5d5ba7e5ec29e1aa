"""The threads between sources and sinks."""
