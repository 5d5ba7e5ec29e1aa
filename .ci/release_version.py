#!/usr/bin/env python3
"""Prints `version=1.2.3` for a tag v1.2.3, if that is what pyproject.toml, CHANGELOG.md and CITATION.cff say.

Usage: release_version.py TAG [REPOSITORY_URL]. With a repository, it must be the one of the project's own URLs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version() -> str:
    """The one in pyproject.toml."""
    return _found(r'^version = "([^"]+)"', "pyproject.toml")


def problems(tag: str, repository: str | None = None) -> list[str]:
    """What does not agree with a tag and a repository; empty where all does."""
    found = []
    if tag != f"v{version()}":
        found.append(f"the tag is {tag}, pyproject.toml has version {version()}")
    changelog, citation = _found(r"^## \[(\d[^\]]*)\]", "CHANGELOG.md"), _found(r"^version: (\S+)", "CITATION.cff")
    for name, value in (("CHANGELOG.md", changelog), ("CITATION.cff", citation)):
        if value != version():
            found.append(f"{name} has {value} as its newest version, pyproject.toml {version()}")
    source = _found(r'^Source = "([^"]+)"', "pyproject.toml")
    if repository is not None and repository.lower() != source.lower():
        found.append(f"this is {repository}, and project.urls in pyproject.toml names {source}")
    return found


def _found(pattern: str, name: str) -> str:
    match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise SystemExit(f"{name} has no line of the form {pattern}")
    return match[1]


if __name__ == "__main__":
    wrong = problems(sys.argv[1], *sys.argv[2:3])
    if wrong:
        sys.exit("; ".join(wrong))
    print(f"version={version()}")
