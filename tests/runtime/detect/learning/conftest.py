"""A toy bundle of two classes that takes a memory, and its detector."""

from __future__ import annotations

import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.detect.reference import repeats

GRID, ROWS = (4, 4), 24


@pytest.fixture
def folder(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "toy.kanoclip", classes=("nut", "bolt"), grid=GRID, memory_rows=ROWS)


@pytest.fixture
def detector(folder):
    with Detector.load(folder, backend="onnxruntime", threads=1) as detector:
        yield detector


@pytest.fixture(autouse=True)
def no_repeats(monkeypatch):
    """A toy bundle sees mean colours, and frames of noise have all the same: to it they would be copies."""
    monkeypatch.setattr(repeats, "REPEATED", 0.0)
