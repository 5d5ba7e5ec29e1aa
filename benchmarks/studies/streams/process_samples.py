"""What a process uses, from /proc: memory, threads, open files, processor time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessSample:
    """One moment of a process.

    Attributes:
        rss_mb: Resident memory, 1e6 bytes.
        pss_mb: The same, with pages shared with other processes counted in part.
        anonymous_mb: Of the resident memory, what belongs to no file: the allocator's arenas and stacks.
        threads: Threads.
        files: Open file descriptors.
        cpu_s: Processor time since its start.
    """

    rss_mb: float
    pss_mb: float
    anonymous_mb: float
    threads: int
    files: int
    cpu_s: float


def sample_process(pid: int) -> ProcessSample:
    """Looks at a process of this user.

    Raises:
        OSError: It has gone.
    """
    folder = Path("/proc") / str(pid)
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (folder / "smaps_rollup").read_text(), re.MULTILINE))
    fields = (folder / "stat").read_text().rpartition(") ")[2].split()  # the name before may hold anything
    return ProcessSample(
        rss_mb=int(memory["Rss"]) * 1024 / 1e6,
        pss_mb=int(memory["Pss"]) * 1024 / 1e6,
        anonymous_mb=int(memory["Anonymous"]) * 1024 / 1e6,
        threads=int(fields[17]),
        files=sum(1 for _ in (folder / "fd").iterdir()),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
    )


def children_of(pid: int) -> list[int]:
    """Processes that it started and that are there."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(status.parent.name))
    return found
