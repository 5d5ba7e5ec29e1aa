"""anomalib's models on the features that nano has: EfficientNet-Lite0, 256 pixels, the same ImageNet weights.

It needs `pip install anomalib openvino`, in an environment beside the project's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from anomalib.models import EfficientAd, Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize

from kanoclip.runtime.types import FloatMap, Image
from kanoclip.train.model.stem.efficientnet import Variant
from kanoclip.train.nano.stem_weights import fetch_release

SIDE = 256
BACKBONE = "tf_efficientnet_lite0"
ROWS = 1024
"""Of PatchCore's memory where that is more than its default share of the patches: what nano's graph takes."""
_MEAN, _SPREAD = 127 / 255, 128 / 255
_BATCH = 4


@dataclass(frozen=True)
class Rival:
    """A model of anomalib's.

    Attributes:
        title: For the table.
        kind: `patchcore`, `padim` or `efficient_ad`.
        backbone: timm's name; empty where the model has its own.
        layers: Whose features are compared.
        fewest: Images that it needs: PaDiM of a single one has covariances of NaN.
    """

    title: str
    kind: str
    backbone: str = ""
    layers: tuple[str, ...] = ()
    fewest: int = 1


# The strides of anomalib's defaults: 8 and 16 for PatchCore (a ResNet's layer2 and layer3), 4 to 16 for PaDiM.
LIKE_OURS = (
    Rival("PatchCore, Lite0", "patchcore", BACKBONE, ("blocks.2", "blocks.4")),
    Rival("PaDiM, Lite0", "padim", BACKBONE, ("blocks.1", "blocks.2", "blocks.4"), fewest=2),
)
FOR_SPEED = (
    *LIKE_OURS,
    Rival("PatchCore, ResNet18", "patchcore", "resnet18", ("layer2", "layer3")),
    Rival("PatchCore, WideResNet50", "patchcore", "wide_resnet50_2", ("layer2", "layer3")),
    Rival("PaDiM, ResNet18", "padim", "resnet18", ("layer1", "layer2", "layer3"), fewest=2),
    Rival("EfficientAD-S", "efficient_ad"),
)
"""Those that are none of `LIKE_OURS` have random weights, which changes nothing about their speed."""


def lite_weights() -> dict[str, torch.Tensor]:
    """The published ImageNet weights by timm's names; the file has them in the order in which the network runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lite0.pth")
        fetch_release(Variant.LITE0, path)
        published = torch.load(path, map_location="cpu", weights_only=True)
    whole = timm.create_model(BACKBONE, pretrained=False).state_dict()
    if [value.shape for value in published.values()] != [value.shape for value in whole.values()]:
        raise ValueError("the published weights do not fit timm's network: another version of timm")
    return dict(zip(whole, published.values(), strict=True))


def build(rival: Rival, weights: dict[str, torch.Tensor] | None) -> Any:
    """A Lightning model, not yet fitted.

    Args:
        rival: Which one.
        weights: For `BACKBONE`; None for random ones.
    """
    scaling = Normalize([_MEAN] * 3, [_SPREAD] * 3)
    before = PreProcessor(transform=Compose([Resize((SIDE, SIDE), antialias=True), scaling]))
    if rival.kind == "efficient_ad":
        return EfficientAd(pre_processor=before, visualizer=False, evaluator=False)
    shared: dict[str, Any] = {
        "backbone": rival.backbone,
        "layers": list(rival.layers),
        "pre_trained": False,
        "pre_processor": before,
        "visualizer": False,
        "evaluator": False,
    }
    # PaDiM has numbers of its own for two ResNets only; theirs for ResNet18, whose channels are as many, is 100.
    model = Patchcore(**shared) if rival.kind == "patchcore" else Padim(**shared, n_features=100)
    if weights is not None and rival.backbone == BACKBONE:
        features = model.model.feature_extractor.feature_extractor
        own = features.state_dict()
        features.load_state_dict({name: weights[name] for name in own})
    return model


def fit(model: Any, images: Sequence[Image]) -> None:
    """Fits PatchCore or PaDiM to good images, as anomalib's own training step does: one pass, no gradients."""
    inner = model.model
    inner.train()
    inner.feature_extractor.eval()
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            found = inner(pixels_of(images[start : start + _BATCH]))
        del found
        if isinstance(model, Patchcore):
            patches = sum(len(one) for one in inner.embedding_store)
            inner.subsample_embedding(min(max(0.1, ROWS / patches), 1.0))
        else:
            inner.fit()
    inner.eval()


def pixels_of(images: Sequence[Image]) -> torch.Tensor:
    """float32 [N, 3, SIDE, SIDE], RGB, scaled as the weights were trained."""
    small = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[:, :, ::-1] for image in images]
    stacked = torch.from_numpy(np.stack(small).astype(np.float32) / 255).permute(0, 3, 1, 2)
    return (stacked - _MEAN) / _SPREAD


class RivalPredictor:
    """A fitted model, for `kanoclip.train.evaluation`.

    Args:
        model: Fitted.
        title: What to call it.
    """

    size = (SIDE, SIDE)
    trained = True

    def __init__(self, model: Any, title: str) -> None:
        self._model = model.model.eval()
        self.about: dict[str, Any] = {"kind": "anomalib", "name": title}

    def class_for(self, class_name: str) -> str:
        """It knows of no words."""
        return class_name

    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """Map and score of each image; of any range, since only their order is measured."""
        with torch.no_grad():
            found = self._model(pixels_of(images))
        maps = found.anomaly_map.reshape(len(images), SIDE, SIDE).numpy()
        return [(one, float(score)) for one, score in zip(maps, found.pred_score.flatten(), strict=True)]

    def close(self) -> None:
        """Holds nothing."""
