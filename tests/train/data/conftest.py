"""Small trees of images and masks, made from the example photographs. Never square, so that a swap shows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "hazelnut_toy"
SIZE = (24, 32)
"""(height, width)"""


class Draw:
    """Writes files; each call returns the path."""

    def __init__(self) -> None:
        self._photo = cv2.imread(str(EXAMPLES / "test" / "colour" / "00.jpg"))
        self._mask = cv2.imread(str(EXAMPLES / "ground_truth" / "colour" / "00_mask.png"), cv2.IMREAD_GRAYSCALE)

    def image(self, path: Path, size: tuple[int, int] = SIZE) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), cv2.resize(self._photo, size[::-1], interpolation=cv2.INTER_AREA))
        return path

    def mask(self, path: Path, size: tuple[int, int] = SIZE, value: int = 255) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = cv2.resize(self._mask, size[::-1], interpolation=cv2.INTER_NEAREST)
        assert small.any() or value == 0
        assert cv2.imwrite(str(path), np.where(small > 0, value, 0).astype(np.uint8))
        return path

    def category(self, folder: Path, good: int = 2, bad: int = 3, defect: str = "crack") -> Path:
        """A category of the MVTec tree, with one train image."""
        self.image(folder / "train" / "good" / "000.png")
        for number in range(good):
            self.image(folder / "test" / "good" / f"{number:03}.png")
        for number in range(bad):
            self.image(folder / "test" / defect / f"{number:03}.png")
            self.mask(folder / "ground_truth" / defect / f"{number:03}_mask.png")
        return folder


@pytest.fixture(scope="session")
def draw() -> Draw:
    return Draw()


@pytest.fixture
def summary():
    """(path below the root, anomalous, mask below the root, defect, split) of every sample, by category."""

    def summary(dataset):
        def below(path):
            return path and str(path.relative_to(dataset.root))

        return {
            category.name: [(below(s.image), s.anomalous, below(s.mask), s.defect, s.split) for s in category.samples]
            for category in dataset.categories
        }

    return summary


@pytest.fixture
def problems():
    """(path below the root, reason) of every problem."""

    def problems(dataset):
        return [(str(problem.path.relative_to(dataset.root)), problem.reason) for problem in dataset.problems]

    return problems
