#!/usr/bin/env python3
"""Puts the site's pages together in build/pages, and builds it into site/, strictly.

Usage: build_site.py [serve]. The pages of docs/ are taken as they are; the command line's are generated from click, and
changelog, contributing and security come from the project's top folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from command_pages import write

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "pages"
CONFIG = ROOT / "build" / "mkdocs.yml"
PARTS = ("runtime", "export", "train", "benchmarks")
TOP = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
EMPTY_NAV = "      - Command line: []\n"
NOT_PAGES = shutil.ignore_patterns("*.ipynb_checkpoints", "__pycache__")


def prepare() -> Path:
    """Writes the pages; returns the configuration that names them."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=NOT_PAGES)
    for name, page in TOP.items():
        (PAGES / page).write_text(_moved((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
    commands = [path.relative_to(PAGES).as_posix() for path in write("markdown", PAGES / "cli")]
    # mkdocstrings reads the sources under the names that they install under: an editable install has no such folder.
    for part in PARTS:
        link = ROOT / "build" / "types" / "kanoclip" / part
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(ROOT / part)
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    if EMPTY_NAV not in config:
        raise SystemExit(f"mkdocs.yml has no line {EMPTY_NAV.strip()!r}, where the command line's pages belong")
    listed = "      - Command line:\n" + "".join(f"          - {name}\n" for name in commands)
    # The configuration lies in build/: its paths begin there.
    config = config.replace(EMPTY_NAV, listed).replace("docs_dir: build/pages", "docs_dir: pages")
    config = config.replace("site_dir: site", "site_dir: ../site").replace("paths: [build/types]", "paths: [types]")
    CONFIG.write_text(config, encoding="utf-8")
    return CONFIG


def _moved(text: str) -> str:
    """A page of the top folder, whose links begin in docs/ now."""
    text = re.sub(r"(\]\(|\]: )docs/", r"\1", text)
    for name, page in TOP.items():
        text = text.replace(f"]({name})", f"]({page})")
    return re.sub(r"\[([\w.]+)\]\(CODE_OF_CONDUCT\.md\)", r"`\1`", text)


def main() -> int:
    """Builds, or serves what changes."""
    config = prepare()
    command = ["serve"] if sys.argv[1:] == ["serve"] else ["build", "--strict", "--clean"]
    done = subprocess.run([sys.executable, "-m", "mkdocs", *command, "-f", str(config)], cwd=ROOT, check=False)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
