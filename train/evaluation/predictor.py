"""Who answers: a checkpoint through torch, or a bundle through the runtime that ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.errors import FrameError, KanoclipError
from kanoclip.runtime.types import FloatMap, Image

if TYPE_CHECKING:
    from kanoclip.train.checkpoint import LoadedModel

DEFAULT_CLASS = "object"


class Predictor(Protocol):
    """Answers for batches of images.

    Attributes:
        size: (height, width) of the maps.
        about: What it is, for the tables and the JSON.
        trained: False where its answers mean nothing.
    """

    size: tuple[int, int]
    about: dict[str, Any]
    trained: bool

    def class_for(self, class_name: str) -> str:
        """The words that are used for a category whose own are `class_name`.

        Raises:
            KanoclipError: It has none that would do.
        """

    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """Map and score of each image.

        Args:
            images: uint8 [H, W, 3], BGR, of any sizes.
            class_name: From `class_for`.
        """

    def close(self) -> None:
        """Releases what it holds."""


class BundlePredictor:
    """A bundle, through the `Detector`: what ships is what is measured."""

    def __init__(self, path: Path, backend: str, device: str, threads: int | None) -> None:
        """Opens the bundle and its engine.

        Raises:
            KanoclipError: The bundle or the engine is no good.
        """
        self.detector = Detector.load(path, backend=backend, device=device, threads=threads)
        self.look(self.detector.bundle)
        manifest = self.detector.bundle.manifest
        model = manifest.model
        self.trained = model.trained
        self.classes = manifest.classes
        self.about = {
            "kind": "bundle",
            "name": self.detector.bundle.root.name,
            "backbone": model.backbone,
            "weights": model.weights,
            "precision": manifest.precision,
            "prompts": model.prompts,
            "image_size": list(model.image_size),
            "checkpoint_sha256": model.checkpoint_sha256,
            "backend": self.detector.backend.name,
        }
        if manifest.tiles is not None:
            self.about["tiles"] = manifest.tiles.title

    def look(self, bundle: Bundle) -> None:
        """Looks at frames as a bundle of the same graph does, which may cut them otherwise."""
        self.detector.rules.decide_by(Settings(), bundle)
        self.size = bundle.manifest.map_size

    def class_for(self, class_name: str) -> str:
        """The baked class of that name, else `object`, else the only one that is baked."""
        if class_name in self.classes:
            return class_name
        if DEFAULT_CLASS in self.classes:
            return DEFAULT_CLASS
        if len(self.classes) == 1:
            return self.classes[0]
        raise FrameError(
            f"the bundle has the classes {', '.join(self.classes)}, neither '{class_name}' nor '{DEFAULT_CLASS}': "
            f'bake it with `kanoclip-export --class "{class_name}"`'
        )

    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """Through the detector, in runs as large as the bundle allows."""
        return [(found.map, found.score) for found in self.detector.batch(images, class_name)]

    def close(self) -> None:
        """Releases the engine."""
        self.detector.close()


class CheckpointPredictor:
    """A model in torch."""

    def __init__(self, loaded: LoadedModel, device: str, name: str) -> None:
        """Moves the model to a device.

        Args:
            loaded: The model.
            device: `auto`, `cpu` or `cuda`.
            name: What to call it.

        Raises:
            KanoclipError: There is no such device.
        """
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise KanoclipError("torch sees no CUDA device: use --device cpu")
        self.device = torch.device(device)
        self.model = loaded.model.to(self.device).eval()
        config = loaded.model.config
        self.size = config.image_size
        self.trained = loaded.trained
        self._text: dict[str, torch.Tensor] = {}
        self.about = {
            "kind": "checkpoint",
            "name": name,
            "backbone": config.backbone,
            "weights": loaded.weights.title,
            "precision": "fp32",
            "prompts": config.prompts,
            "image_size": list(config.image_size),
            "checkpoint_sha256": loaded.checkpoint_sha256,
            "backend": f"torch {self.device.type}",
        }

    def class_for(self, class_name: str) -> str:
        """Any class will do that the prompts can hold."""
        self.model.check_classes([class_name])
        return class_name

    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """All images in one batch; the class's text is encoded once."""
        import torch

        from kanoclip.train.model.kanoclip import to_pixels

        with torch.inference_mode():
            if class_name not in self._text:
                self._text[class_name] = self.model.text_features([class_name])
            frames = torch.from_numpy(np.stack([resize(image, *self.size) for image in images])).to(self.device)
            output = self.model(to_pixels(frames, self.model.tower.normalisation), self._text[class_name])
            maps, scores = output.map.float().cpu().numpy(), output.score.float().cpu().tolist()
        if not (np.isfinite(maps.sum()) and np.isfinite(scores).all()):
            raise KanoclipError(f"{self.about['name']} gives NaN: the training run has diverged")
        return [(maps[i], scores[i]) for i in range(len(images))]

    def close(self) -> None:
        """Nothing is held."""
