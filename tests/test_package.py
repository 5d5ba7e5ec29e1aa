from __future__ import annotations

import zlib

LIMIT = 40e6
FOLDERS = ("train", "export", "runtime", "benchmarks", "examples")


def test_what_goes_into_the_wheel_stays_under_40_mb(request):
    """Each file deflated as in a wheel; the archive's own entries are some kB."""
    total = 0
    for folder in FOLDERS:
        for path in (request.config.rootpath / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                total += len(zlib.compress(path.read_bytes(), 6))
    assert 1e6 < total < LIMIT, f"{total / 1e6:.1f} MB"
