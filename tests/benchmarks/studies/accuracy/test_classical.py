import numpy as np
import pytest

from kanoclip.benchmarks.studies.accuracy.classical import PatchStatistics, mahalanobis, patch_features


def test_a_spot_stands_out_and_a_plain_image_does_not():
    rng = np.random.default_rng(0)
    plain = rng.normal(128, 6, (200, 300, 3)).clip(0, 255).astype(np.uint8)
    spotted = plain.copy()
    spotted[100:120, 150:170] = 250
    (_, low), (heat, high) = PatchStatistics().predict([plain, spotted], "object")
    assert heat.shape == (256, 256) and heat.dtype == np.float32 and heat.min() >= 0 and heat.max() < 1
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - 110 * 256 / 200) < 16 and abs(column - 160 * 256 / 300) < 16
    assert high > low + 0.1


def test_an_image_of_one_colour_is_nowhere_anomalous():
    ((heat, score),) = PatchStatistics().predict([np.full((64, 64, 3), 90, np.uint8)], "object")
    assert np.isfinite(heat).all() and score == pytest.approx(0, abs=1e-3)


def test_distances_are_in_deviations():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(4000, 3)).astype(np.float32) * (1, 10, 100)
    distance = mahalanobis(features.astype(np.float32))
    assert np.sqrt((distance**2).mean()) == pytest.approx(1, rel=0.1)


def test_features_are_one_in_four_pixels():
    assert patch_features(np.zeros((64, 80, 3), np.uint8)).shape == (16, 20, 8)
