from __future__ import annotations

import re
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


def test_every_package_is_listed(request):
    """setuptools takes what is listed, and an editable install all there is: a wheel would lack a room unseen."""
    root = request.config.rootpath
    listed = set(re.findall(r'"([^"]+)"', re.search(r"^packages = \[(.*?)^\]", _project(root), re.M | re.S)[1]))
    there = {
        "kanoclip." + ".".join(path.parent.relative_to(root).parts)
        for folder in FOLDERS
        for path in (root / folder).rglob("__init__.py")
    }
    assert listed == there | {"kanoclip.examples"}


def _project(root):
    return (root / "pyproject.toml").read_text(encoding="utf-8")
