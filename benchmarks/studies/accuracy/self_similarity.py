"""A baseline that no anomaly taught: how unlike each patch is to the other patches of its image, by the stem alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.types import FloatMap, Image
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.model.smoothing import MapSmoothing
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.weights.load import load_clip


class SelfSimilarity:
    """The sharpest of the stem's soft maxima as a map; its largest value is the score.

    Attributes:
        size: (height, width) of the maps.
        about: What it is.
        trained: True: its answers mean what they say.
    """

    def __init__(self, weights: str | Path = "auto", backbone: str = "nano") -> None:
        """Loads a backbone's stem.

        Args:
            weights: As `load_clip` takes it.
            backbone: One with a convolutional stem.

        Raises:
            CheckpointError: The weights cannot be had.
            click.UsageError: The backbone has no stem.
        """
        entry = get_backbone(backbone)
        clip, _ = load_clip(entry, str(weights))
        tower = ClipVV(clip.visual, entry.native_size)
        if tower.stem is None:
            raise click.UsageError(f"{backbone} has no convolutional stem: nano has one")
        self.stem, self.size = tower.stem, entry.native_size
        self.smoothing = MapSmoothing(tower.grid, self.size)
        self.about: dict[str, Any] = {"kind": "classical", "name": "self-similarity", "image_size": list(self.size)}
        self.trained = True

    def class_for(self, class_name: str) -> str:
        """The words are not used."""
        return class_name

    @torch.inference_mode()
    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """Map and score of each image, both in [0, 1]."""
        frames = torch.from_numpy(np.stack([resize(image, *self.size) for image in images]))
        standardised = self.stem.standardised(self.stem.read(to_pixels(frames)))
        directions = torch.nn.functional.normalize(standardised, dim=-1)
        # The first channel is a distance times a constant gain; only its order counts, and it stays below 1 this way.
        distance = self.stem.unlikeness(directions)[..., 0].unflatten(1, self.stem.grid)
        maps = self.smoothing(distance / (1 + distance)).clamp(0, 1).numpy()
        return [(found, float(found.max())) for found in maps]

    def close(self) -> None:
        """Holds nothing."""
