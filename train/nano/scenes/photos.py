"""A folder of photographs: surfaces and grounds cut from them, whole ones as hard normal images, defects put into both.

Which photographs the shipped model saw, and under which licences, is in NOTICE.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.sources.files.images import ImageSource, read_image
from kanoclip.runtime.types import Image
from kanoclip.train.nano.scenes.materials import Paint
from kanoclip.train.nano.scenes.noise import Rng

SURFACE, OBJECT = "surface", "object"
"""What captions call a part of a photograph, and a whole one: the folders do not say what it shows."""
_LEAST = 96
"""Pixels of the shorter side; a smaller photograph would be mostly interpolation."""
_HELD_OUT = 8
"""One photograph in so many is held out of training: thresholds are found on those."""


class Photos:
    """Photographs on disk, read anew and cut and coloured at random for every image.

    Attributes:
        paths: Those that can be used.
        left_out: Those that cannot, each with the reason.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Reads each photograph once and leaves broken and tiny ones out.

        Raises:
            TrainingError: None is left.
        """
        self.paths: list[Path] = []
        self.left_out: list[tuple[Path, str]] = []
        for path in paths:
            image = read_image(path)
            if isinstance(image, str):
                self.left_out.append((path, image))
            elif min(image.shape[:2]) < _LEAST:
                self.left_out.append((path, f"its shorter side has less than {_LEAST} pixels"))
            else:
                self.paths.append(path)
        if not self.paths:
            reason = f" ({self.left_out[0][0]}: {self.left_out[0][1]})" if self.left_out else ""
            raise TrainingError(f"no usable photograph among {len(paths)}{reason}: name a folder that has some")

    @classmethod
    def from_folder(cls, folder: Path, *, held_out: bool = False) -> Photos:
        """The photographs of a folder and of all below it that are trained on, or those that are not.

        Which part a photograph belongs to depends on its path below the folder alone.

        Raises:
            SourceError: The folder has no images.
            TrainingError: The folder is missing, or none of its images can be used.
        """
        if not folder.is_dir():
            raise TrainingError(f"no folder of photographs {folder}: name one that has images")
        paths = ImageSource.from_folder(folder).paths
        part = [path for path in paths if _is_held_out(path.relative_to(folder)) == held_out]
        if not part:
            kind = "the part that is held out" if held_out else "the part that is trained on"
            raise TrainingError(f"{folder}: {len(paths)} images, and none falls into {kind}: put more there")
        return cls(part)

    def whole(self, rng: Rng, size: int) -> Paint:
        """A photograph, or most of it, stretched to the model's square: float32 [size, size, 3], BGR in [0, 1]."""
        image = self._any(rng)
        if rng.random() < 0.5:
            image = _part(rng, image, rng.uniform(0.6, 1.0), 1.0)
        return _as_paint(_flipped(rng, image), size)

    def paint(self, rng: Rng, size: int) -> Paint:
        """A part of a photograph in other colours, as a surface: float32 [size, size, 3], BGR in [0, 1]."""
        part = _part(rng, self._any(rng), rng.uniform(0.3, 1.0), 2 ** rng.uniform(-0.7, 0.7))
        paint = _as_paint(np.rot90(_flipped(rng, part), int(rng.integers(4))), size)
        if rng.random() < 0.35:
            paint = np.repeat(paint.mean(axis=2, keepdims=True), 3, axis=2)
        elif rng.random() < 0.35:
            paint = paint[..., rng.permutation(3)]
        mean = np.float32(paint.mean())
        paint = mean * np.float32(rng.uniform(0.55, 1.2)) + (paint - mean) * np.float32(rng.uniform(0.4, 1.1))
        return np.clip(paint, 0, 1).astype(np.float32)

    def _any(self, rng: Rng) -> Image:
        path = self.paths[int(rng.integers(len(self.paths)))]
        image = read_image(path)
        if isinstance(image, str):
            raise TrainingError(f"{path} could be read at the start and cannot now ({image}): start again")
        return image


def _is_held_out(relative: Path) -> bool:
    return zlib.crc32(relative.as_posix().encode()) % _HELD_OUT == 0


def _part(rng: Rng, image: Image, share: float, longer: float) -> Image:
    """A random rectangle of about `share` of the shorter side, `longer` times as high as wide."""
    most = min(image.shape[:2])
    height, width = (max(8, int(most * min(1.0, share * stretch**0.5))) for stretch in (longer, 1 / longer))
    y, x = (int(rng.integers(0, a - b + 1)) for a, b in zip(image.shape[:2], (height, width), strict=True))
    return image[y : y + height, x : x + width]


def _flipped(rng: Rng, image: Image) -> Image:
    return image[:, ::-1] if rng.random() < 0.5 else image


def _as_paint(image: Image, size: int) -> Paint:
    way = cv2.INTER_AREA if min(image.shape[:2]) > size else cv2.INTER_CUBIC
    stretched = cv2.resize(np.ascontiguousarray(image), (size, size), interpolation=way)
    return np.asarray(stretched, np.float32) / 255
