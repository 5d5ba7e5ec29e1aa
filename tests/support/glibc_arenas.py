"""How many heaps glibc has made for threads, by what a process tells of its memory."""

from __future__ import annotations

import re

PRINTED = 'print(open("/proc/self/maps").read())'
"""What the process must do."""


def further_heaps(printed: str) -> int:
    """Those beside the first; seldom one more, a mapping of another kind that begins at such a place by chance."""
    starts = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ rw-p 0+ 00:00 0 *$", printed, re.MULTILINE)
    return sum(int(start, 16) % (64 << 20) == 0 for start in starts)
