"""What a process uses: memory, threads, open files, processor time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil


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
    # psutil reads the same file for the shared pages, and leaves the anonymous ones out.
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    memory = {name: int(kib) * 1024 / 1e6 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            return ProcessSample(
                rss_mb=memory["Rss"],
                pss_mb=memory["Pss"],
                anonymous_mb=memory["Anonymous"],
                threads=process.num_threads(),
                files=process.num_fds(),
                cpu_s=cpu.user + cpu.system,
            )
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(f"process {pid} has gone") from error


def children_of(pid: int) -> list[int]:
    """Processes that it started and that are there."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []
