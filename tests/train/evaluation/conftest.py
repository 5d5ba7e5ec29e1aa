"""Small datasets drawn on the spot, and a predictor whose answers are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.train.data.types import Category, Dataset, Sample

SIZE = (16, 16)


class Known:
    """Reads its answer off the image: blue is the map, the brightest blue is the score, unless told otherwise."""

    size = SIZE
    trained = True

    def __init__(self, scores=None):
        self.about = {
            "kind": "checkpoint",
            "name": "known",
            "backbone": "none",
            "weights": "openai",
            "precision": "fp32",
            "prompts": "learned",
            "image_size": [16, 16],
            "checkpoint_sha256": None,
            "backend": "numpy",
        }
        self.asked = []

    def class_for(self, class_name):
        return class_name

    def predict(self, images, class_name):
        self.asked.append((len(images), class_name))
        return [((image[..., 0] / 255).astype(np.float32), float(image[..., 0].max() / 255)) for image in images]

    def close(self):
        pass


@pytest.fixture
def known():
    return Known()


@pytest.fixture
def draw(tmp_path):
    """Writes one category out of (label, blue image [16, 16] or None for a broken file, mask [16, 16] or None)."""

    def write(rows, name="part", pixel_labels=True) -> Dataset:
        samples = []
        for i, (anomalous, blue, mask) in enumerate(rows):
            path = tmp_path / name / f"{i:03d}.png"
            path.parent.mkdir(exist_ok=True)
            if blue is None:
                path.write_bytes(b"no image")
            else:
                cv2.imwrite(str(path), np.dstack([blue, np.zeros((16, 16, 2), np.uint8)]).astype(np.uint8))
            mask_path = None
            if mask is not None:
                mask_path = path.with_name(f"{i:03d}_mask.png")
                cv2.imwrite(str(mask_path), np.asarray(mask, np.uint8) * 255)
            samples.append(Sample(path, anomalous, mask_path, "bad" if anomalous else "good", "test"))
        category = Category(name, name, tuple(samples))
        return Dataset("mvtec", tmp_path, (category,), pixel_labels, ())

    return write


@pytest.fixture
def examples() -> Path:
    return Path(__file__).parents[3] / "examples" / "hazelnut_toy"
