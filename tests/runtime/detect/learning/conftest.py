"""A toy bundle of two classes that takes a memory, and its detector."""

from __future__ import annotations

import pytest

from kanoclip.runtime import Detector

GRID, ROWS = (4, 4), 24


@pytest.fixture
def folder(make_toy_bundle, tmp_path):
    return make_toy_bundle(tmp_path / "toy.kanoclip", classes=("nut", "bolt"), grid=GRID, memory_rows=ROWS)


@pytest.fixture
def detector(folder):
    with Detector.load(folder, backend="onnxruntime", threads=1) as detector:
        yield detector
