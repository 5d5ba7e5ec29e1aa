"""A disk of a few megabytes."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager

import pytest


@contextmanager
def small_disk(folder, size):
    """Mounts a tmpfs of so many bytes for a while; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here ({mounted.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(path):
    """Takes the rest of the disk; returns the bytes taken."""
    size = 0
    with open(path, "wb", buffering=0) as file:
        for step in (65536, 4096, 1):
            try:
                while True:
                    size += file.write(b"\0" * step)
            except OSError:
                pass
    return size
