from __future__ import annotations

import importlib.util
import re
import subprocess
import zlib

import pytest

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


@pytest.fixture
def release(request):
    """The script that the release's workflow asks."""
    spec = importlib.util.spec_from_file_location("release", request.config.rootpath / ".ci" / "release_version.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_version_changelog_citation_and_tag_agree(request, release):
    """A commit that has a version's tag is that version; without git, or without a tag, the files agree."""
    done = subprocess.run(
        ["git", "tag", "--points-at", "HEAD", "v[0-9]*"], cwd=request.config.rootpath, capture_output=True, text=True
    )
    for tag in done.stdout.split() or [f"v{release.version()}"]:
        assert release.problems(tag) == []


def test_a_tag_or_a_repository_that_differs_is_named(release):
    assert len(release.problems("v99.0.0")) == 1
    (problem,) = release.problems(f"v{release.version()}", "https://github.com/somebody/fork")
    assert "somebody/fork" in problem and "project.urls" in problem


def test_the_projects_address_is_one(request, release):
    """Where it is written out, it is what project.urls says: whoever moves the project finds every place by this."""
    root = request.config.rootpath
    source = re.search(r'^Source = "(.*)"$', _project(root), re.M)[1]
    owner, name = source.split("/")[-2:]
    pages = re.search(r'^Documentation = "(.*)"$', _project(root), re.M)[1]
    assert pages == f"https://{owner}.github.io/{name}/"
    texts = [*root.glob("*.md"), *root.glob("*.yml"), root / "CITATION.cff", *(root / ".github").rglob("*.*")]
    found = {
        address
        for path in texts
        for address in re.findall(r"https://github\.com/[\w-]*kanoclip[\w-]*/[\w-]+", path.read_text(encoding="utf-8"))
    }
    assert found == {source}


def _project(root):
    return (root / "pyproject.toml").read_text(encoding="utf-8")
