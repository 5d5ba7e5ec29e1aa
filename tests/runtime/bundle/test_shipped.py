from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle, find_bundle, sha256_of
from kanoclip.runtime.metrics import image_auroc
from kanoclip.train.weights import CHECKPOINT, CLIP, packaged


@pytest.mark.parametrize("precision", ["fp32", "int8-cpu"])
def test_shipped_bundles_are_whole_small_and_trained(tmp_path, precision):
    found = find_bundle(None, tmp_path)
    bundle = Bundle.open(found if precision == "fp32" else found.with_name("nano-int8.kanoclip"))
    manifest = bundle.manifest
    assert manifest.model.backbone == "nano" and manifest.precision == precision
    assert manifest.model.trained
    assert sum(info.size for info in manifest.files.values()) < 12e6
    assert manifest.parity["map_drift"] <= manifest.parity["bounds"]["map"]


def test_shipped_bundles_are_of_the_packaged_weights_and_checkpoint(tmp_path):
    """Whoever exports again gets what ships."""
    shipped = find_bundle(None, tmp_path)
    checkpoint = json.loads(packaged(CHECKPOINT).with_suffix(".json").read_text())
    for name in ("nano", "nano-int8"):
        model = Bundle.open(shipped.with_name(f"{name}.kanoclip")).manifest.model
        assert model.weights_sha256 == sha256_of(packaged(CLIP)) == checkpoint["backbone_sha256"]
        assert model.checkpoint_sha256 == sha256_of(packaged(CHECKPOINT)) == checkpoint["tensors_sha256"]


def test_shipped_bundle_tells_stained_from_good_hazelnuts(request, tmp_path):
    """Real photographs, none of which was trained on."""
    folder = request.config.rootpath / "examples" / "hazelnut_toy"
    scores, labels, pixels, truth = [], [], [], []
    with Detector.load(find_bundle(None, tmp_path)) as detector:
        for path in sorted((folder / "test").rglob("*.jpg")):
            found = detector(cv2.imread(str(path)))
            scores.append(found.score)
            labels.append(path.parent.name != "good")
            mask = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            drawn = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) if mask.exists() else np.zeros((512, 512), np.uint8)
            truth.append(cv2.resize(drawn, found.map.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0)
            pixels.append(found.map)
    assert len(labels) > 10 and True in labels and False in labels
    assert image_auroc(np.array(labels), np.array(scores)) > 0.8
    assert image_auroc(np.stack(truth).ravel(), np.stack(pixels).ravel()) > 0.9


def test_shipped_bundle_gives_a_map_that_follows_the_image(tmp_path, request):
    folder = request.config.rootpath / "examples" / "hazelnut_toy" / "test"
    first, second = (cv2.imread(str(folder / name)) for name in ("colour/00.jpg", "good/04.jpg"))
    with Detector.load(find_bundle(None, tmp_path)) as detector:
        found, again, other = detector(first), detector(first), detector(second)
    assert found.map.shape == (256, 256) and found.map.std() > 1e-3
    assert found.score == again.score and (found.map == again.map).all()
    assert found.score != other.score
