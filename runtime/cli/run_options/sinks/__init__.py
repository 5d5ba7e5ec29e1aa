"""Options of `[[sink]]` and of the flags that stand for one, and the sinks that they open."""
