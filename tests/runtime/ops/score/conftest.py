"""Small images, an engine that gives their grey level as score, and a list of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.ops.score.bulk import Job
from kanoclip.runtime.ops.score.scorer import Engine, manifest_digest


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """40 images in two folders, of grey levels 0, 6, 12, ..., and among them one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        path = folder / f"line{number // 20}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        level = np.full((20, 30, 3), number * 6, np.uint8)
        level[5:9, 5 : 5 + number % 9] = 255 - number  # something for masks and sharpness
        assert cv2.imwrite(str(path), level)
    (folder / "line1" / "30.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def make_engine(toy_bundle):
    """Makes an engine of the toy bundle; keyword arguments change it."""

    def make(**changes) -> Engine:
        bundle = changes.pop("bundle", toy_bundle)
        fields = {
            "bundle": bundle,
            "bundle_sha256": manifest_digest(bundle),
            "backend": "onnxruntime",
            "device": "cpu",
            "threads": 1,
            "settings": Settings(),
            "class_name": "object",
        }
        return Engine(**fields | changes)

    return make


@pytest.fixture
def make_job(make_engine, pictures, tmp_path):
    """Makes a job over `pictures` with slices of 7; keyword arguments change it."""

    def make(**changes) -> Job:
        engine = changes.pop("engine", None) or make_engine(maps=changes.get("maps") is not None)
        fields = {"source": str(pictures), "output": tmp_path / "results.parquet", "engine": engine, "slice": 7}
        return Job(**fields | changes)

    return make
