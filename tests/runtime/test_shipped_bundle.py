from __future__ import annotations

import cv2

from kanoclip.runtime import Detector
from kanoclip.runtime.bundle import Bundle, find_bundle


def test_shipped_bundle_is_whole_small_and_says_that_it_is_untrained(tmp_path):
    bundle = Bundle.open(find_bundle(None, tmp_path))
    manifest = bundle.manifest
    assert manifest.model.backbone == "nano" and manifest.precision == "fp16"
    assert manifest.model.trained is False and manifest.model.weights.startswith("seeded")
    assert sum(info.size for info in manifest.files.values()) < 12e6
    assert manifest.parity["map_drift"] <= manifest.parity["bounds"]["map"]


def test_shipped_bundle_gives_a_map_that_follows_the_picture(tmp_path, request):
    """Untrained, it means nothing; but it must not be constant, and equal frames must give equal answers."""
    folder = request.config.rootpath / "examples" / "hazelnut_toy" / "test"
    first, second = (cv2.imread(str(folder / name)) for name in ("colour/00.jpg", "good/04.jpg"))
    with Detector.load(find_bundle(None, tmp_path)) as detector:
        found, again, other = detector(first), detector(first), detector(second)
    assert found.map.shape == (256, 256) and found.map.std() > 1e-3
    assert found.score == again.score and (found.map == again.map).all()
    assert found.score != other.score
