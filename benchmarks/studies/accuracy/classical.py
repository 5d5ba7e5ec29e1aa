"""A classical baseline that learns nothing: patches that are unlike the other patches of the same image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.types import FloatMap, Image

_STEP = 4
_SHRINK = 0.05
_FLOOR = 1e-3
"""Deviation below which a feature says nothing."""


class PatchStatistics:
    """Statistics of colour and texture around every fourth pixel, and how far they are from the image's own.

    Attributes:
        size: (height, width) of the maps.
        about: What it is.
        trained: True: its answers mean what they say.
    """

    def __init__(self, size: tuple[int, int] = (256, 256)) -> None:
        """A detector for maps of a size."""
        self.size = size
        self.about: dict[str, Any] = {"kind": "classical", "name": "patch statistics", "image_size": list(size)}
        self.trained = True

    def class_for(self, class_name: str) -> str:
        """The words are not used."""
        return class_name

    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """Map in [0, 1] and score in [0, 1] of each image; both grow with the distance d as d / (1 + d)."""
        return [self._one(resize(image, *self.size)) for image in images]

    def close(self) -> None:
        """Holds nothing."""

    def _one(self, image: Image) -> tuple[FloatMap, float]:
        features = patch_features(image)
        distance = mahalanobis(features.reshape(-1, features.shape[-1])).reshape(features.shape[:2])
        distance = np.asarray(cv2.resize(distance, self.size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        distance = np.asarray(cv2.GaussianBlur(distance, (0, 0), 4 * self.size[0] / 336), np.float32)
        found = distance / (1 + distance)
        return found, float(found.max())


def patch_features(image: Image) -> npt.NDArray[np.float32]:
    """Mean and deviation of L, a, b and mean strength of edges at two scales: float32 [rows, columns, 8]."""
    lab = np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_BGR2LAB), np.float32)
    mean = cv2.GaussianBlur(lab, (0, 0), 3)
    deviation = np.sqrt(np.maximum(cv2.GaussianBlur(lab * lab, (0, 0), 3) - mean * mean, 0))
    parts = [mean, deviation]
    for scale in (1.0, 2.5):
        light = cv2.GaussianBlur(lab[..., 0], (0, 0), scale)
        edges = cv2.magnitude(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
        parts.append(cv2.GaussianBlur(edges, (0, 0), 3)[..., None])
    return np.concatenate(parts, axis=-1)[::_STEP, ::_STEP].astype(np.float32)


def mahalanobis(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row's distance from the median, in deviations of all rows: [N, F] -> [N]."""
    away = features.astype(np.float64) - np.median(features, axis=0)
    away = away / np.maximum(away.std(axis=0), _FLOOR)
    covariance = (1 - _SHRINK) * np.cov(away, rowvar=False) + _SHRINK * np.eye(features.shape[1])
    squared = np.einsum("nf,nf->n", away @ np.linalg.inv(covariance), away)
    return np.sqrt(squared / features.shape[1]).astype(np.float32)
