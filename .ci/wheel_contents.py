#!/usr/bin/env python3
"""Lists what a wheel or a source archive holds, by folder, and refuses what must not be there or is missing.

Usage: wheel_contents.py FILE...
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 40e6
"""Bytes of the archive."""
FORBIDDEN = re.compile(r"(^|/)(__pycache__|tests|\.git|\.venv[^/]*)/|\.(pyc|pyo|so|key|env)$")
SHIPPED = "kanoclip/runtime/bundle/shipped"


def problems(path: Path) -> list[str]:
    """What is wrong with an archive; its contents are printed."""
    sizes, read = _opened(path)
    by_folder: dict[str, list[int]] = defaultdict(list)
    for name, size in sizes.items():
        by_folder["/".join(name.split("/")[:2])].append(size)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, {len(sizes)} files")
    for folder, ones in sorted(by_folder.items(), key=lambda item: -sum(item[1])):
        if sum(ones) > 1e5:
            print(f"  {sum(ones) / 1e6:7.2f} MB {len(ones):5d} files  {folder}")
    found = [f"{name} has no business there" for name in sizes if FORBIDDEN.search(name)]
    if path.stat().st_size > LIMIT:
        found.append(f"it is over {LIMIT / 1e6:.0f} MB")
    return found + (_wheel_problems(set(sizes), read) if path.suffix == ".whl" else _sdist_problems(set(sizes)))


def _wheel_problems(names: set[str], read: Callable[[str], bytes]) -> list[str]:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^packages = \[(.*?)^\]", project, re.M | re.S)
    assert listed is not None
    packages = re.findall(r'"([^"]+)"', listed[1])
    wanted = [f"{package.replace('.', '/')}/__init__.py" for package in packages]
    wanted += [f"kanoclip/{part}/py.typed" for part in ("runtime", "export", "train", "benchmarks")]
    found = [f"{name} is missing" for name in wanted if name not in names]
    found += [f"{name} is of no package" for name in names if not re.match(r"kanoclip/|kanoclip_edge-", name)]
    for licence in ("LICENSE", "NOTICE", "examples/LICENSE-hazelnut_toy.txt"):
        if not any(name.endswith(f".dist-info/licenses/{licence}") for name in names):
            found.append(f"the licence file {licence} is missing")
    manifests = [name for name in names if name.startswith(SHIPPED) and name.endswith(".kanoclip/manifest.json")]
    if not manifests:
        found.append("no model is shipped")
    for manifest in manifests:
        for name, info in json.loads(read(manifest))["files"].items():
            place = f"{manifest.rpartition('/')[0]}/{name}"
            if place not in names or hashlib.sha256(read(place)).hexdigest() != info["sha256"]:
                found.append(f"{place} is not as its manifest says")
    return found


def _sdist_problems(names: set[str]) -> list[str]:
    inside = {name.partition("/")[2] for name in names}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "CHANGELOG.md", "CITATION.cff", "Makefile"}
    return [f"{name} is missing" for name in sorted(wanted - inside)]


def _opened(path: Path) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """Bytes of each file by its name, and a function that reads one."""
    if path.suffix == ".whl":
        wheel = zipfile.ZipFile(path)
        return {one.filename: one.file_size for one in wheel.infolist() if not one.is_dir()}, wheel.read
    archive = tarfile.open(path)  # noqa: SIM115

    def read(name: str) -> bytes:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()

    return {one.name: one.size for one in archive.getmembers() if one.isfile()}, read


if __name__ == "__main__":
    wrong = {name: problems(Path(name)) for name in sys.argv[1:]}
    for name, found in wrong.items():
        for one in found:
            print(f"{name}: {one}", file=sys.stderr)
    sys.exit(any(wrong.values()))
