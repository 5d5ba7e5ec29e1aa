"""The rows that a suite measures: checkpoints, and CLIP without training in three forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kanoclip.train.checkpoint import LoadedModel
    from kanoclip.train.evaluation.predictor import Predictor

Baseline = Literal["clip", "clip-ac", "winclip"]
TITLES: dict[str, str] = {"clip": "CLIP", "clip-ac": "CLIP-AC", "winclip": "WinCLIP"}


@dataclass(frozen=True)
class Frozen:
    """CLIP without training, and without the V-V path.

    Attributes:
        kind: `clip`: two prompts; `clip-ac`: WinCLIP's ensemble of prompts; `winclip`: the same over windows.
        backbone: Name in the registry.
        weights: As --weights takes it.
        size: Side of the image in pixels; None for the backbone's own.
        sigma: Of the maps' Gaussian in pixels; None for the model's own.
    """

    kind: Baseline
    backbone: str
    weights: str
    size: int | None = None
    sigma: float | None = None

    def open(self, device: str) -> Predictor:
        """Loads the backbone.

        Raises:
            KanoclipError: The backbone or its weights cannot be had, or it is not one that windows can be cut from.
        """
        from kanoclip.train.backbones import get_backbone
        from kanoclip.train.checkpoint import build_model
        from kanoclip.train.evaluation.predictor import CheckpointPredictor
        from kanoclip.train.evaluation.suite.winclip import WindowPredictor
        from kanoclip.train.model.kanoclip import ModelConfig

        entry = get_backbone(self.backbone)
        size = entry.native_size if self.size is None else (self.size, self.size)
        config = ModelConfig(
            entry.name,
            size,
            vv=False,
            bicmci=False,
            conv_adapter=False,
            prompts="template" if self.kind == "clip" else "handcrafted",
        )
        loaded = build_model(config, self.weights)
        smooth(loaded, self.sigma)
        kind = WindowPredictor if self.kind == "winclip" else CheckpointPredictor
        return kind(loaded, device, TITLES[self.kind])


def open_checkpoint(path: Path, weights: str, size: int | None, sigma: float | None, device: str) -> Predictor:
    """Loads a checkpoint, at its own size or at another.

    Raises:
        KanoclipError: It cannot be read, or the size does not suit its backbone.
    """
    from kanoclip.train.checkpoint import load_checkpoint
    from kanoclip.train.evaluation.predictor import CheckpointPredictor

    loaded = load_checkpoint(path, weights, None if size is None else (size, size))
    smooth(loaded, sigma)
    return CheckpointPredictor(loaded, device, path.name)


def smooth(loaded: LoadedModel, sigma: float | None) -> None:
    """Gives a model's maps another Gaussian, of `sigma` pixels; None leaves its own."""
    from kanoclip.train.model.smoothing import MapSmoothing

    if sigma is not None:
        model = loaded.model
        model.head.smoothing = MapSmoothing(model.tower.grid, model.config.image_size, sigma)


def at_sizes(methods: Sequence[Frozen], sizes: Sequence[int]) -> list[Frozen]:
    """Each method at each size."""
    return [replace(method, size=size) for method in methods for size in (sizes or (None,))]
