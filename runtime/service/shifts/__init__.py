"""Counters by shift: what was scored in which hour, per source, saved over a restart."""
