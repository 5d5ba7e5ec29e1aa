"""Few-shot evaluation through the shipped bundle, on drawn parts: what is drawn, what is measured, what is reported."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.errors import DataError
from kanoclip.train.data.types import Category, Dataset, Sample
from kanoclip.train.evaluation.evaluate import EvaluationConfig
from kanoclip.train.evaluation.few_shot.draws import FewShot, few_shot
from kanoclip.train.evaluation.few_shot.references import Protocol
from kanoclip.train.evaluation.predictor import BundlePredictor
from kanoclip.train.evaluation.results import METRICS

GOOD, BAD = 7, 4
CONFIG = EvaluationConfig()


def part(seed, size, defect):
    """A grating with noise, and perhaps a bright cross on it; image and mask."""
    rng = np.random.default_rng(seed)
    columns = np.indices(size)[1]
    grey = 110 + 40 * np.sin(columns / 6 + rng.uniform(0, 1)) + rng.normal(0, 6, size)
    mask = np.zeros(size, np.uint8)
    if defect:
        at = rng.integers(30, np.array(size) - 30)
        cv2.drawMarker(mask, (int(at[1]), int(at[0])), 255, cv2.MARKER_CROSS, 24, 5)
        grey[mask > 0] = 250
    return np.repeat(grey.clip(0, 255)[:, :, None], 3, 2).astype(np.uint8), mask


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two categories: one of squares, one of long strips."""
    root = tmp_path_factory.mktemp("parts")
    categories = []
    for name, size in (("plate", (128, 128)), ("strip", (384, 128))):
        samples = []
        for number in range(GOOD + BAD):
            image, mask = part(number, size, number >= GOOD)
            path = root / name / f"{number:02}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), image)
            place = None
            if number >= GOOD:
                place = path.with_name(f"{number:02}_mask.png")
                cv2.imwrite(str(place), mask)
            samples.append(Sample(path, number >= GOOD, place, "cross" if place else "good", "test"))
        categories.append(Category(name, name, tuple(samples)))
    return Dataset("mvtec", root, tuple(categories), True, ())


@pytest.fixture(scope="module")
def predictor():
    found = BundlePredictor(shipped_bundle(), "onnxruntime", "cpu", 1)
    yield found
    found.close()


def only(dataset, name):
    return Dataset(dataset.name, dataset.root, tuple(one for one in dataset.categories if one.name == name), True, ())


def test_references_are_never_measured_and_every_draw_is_another(drawn, predictor):
    seen = []
    found = few_shot(drawn, None, predictor, Protocol(3, draws=2), CONFIG, lambda: seen.append(1))
    for draws in found.draws.values():
        assert [(one.result.normal, one.result.anomalous) for one in draws] == [(GOOD - 3, BAD)] * 2
        assert draws[0].threshold != draws[1].threshold
        assert all(one.result.metrics["image_auroc"] == 1 for one in draws)  # a cross on a grating is plain to see
        assert all(one.result.metrics["pixel_auroc"] > 0.9 for one in draws)
        assert all(one.recall == 1 for one in draws)
    assert len(seen) == 2 * 2 * (GOOD - 3 + BAD)
    assert predictor.detector.rules.memory_of() is None  # as it was
    again = few_shot(only(drawn, "plate"), None, predictor, Protocol(3, draws=1), CONFIG)
    assert again.draws["plate"][0].threshold == found.draws["plate"][0].threshold


def test_tiles_by_the_aspect_of_the_references(drawn, predictor):
    found = few_shot(drawn, None, predictor, Protocol(2, draws=1, tiles="auto"), CONFIG)
    assert [found.draws[name][0].tiles for name in ("plate", "strip")] == [(1, 1), (1, 1)]  # no larger than the model's
    found = few_shot(only(drawn, "strip"), None, predictor, Protocol(2, draws=1, tiles=TileGrid(3, 1, 0.15)), CONFIG)
    assert found.draws["strip"][0].tiles == (3, 1)
    assert found.draws["strip"][0].result.metrics["image_auroc"] == 1
    assert predictor.size == (256, 256)


def test_a_training_split_is_taken_where_there_is_one(drawn, predictor):
    samples = tuple(one for one in drawn.categories[0].samples if not one.anomalous)
    pool = Dataset("mvtec", drawn.root, (Category("plate", "plate", samples[:3]),), True, ())
    rest = Category("plate", "plate", drawn.categories[0].samples[3:])
    test = Dataset("mvtec", drawn.root, (rest,), True, ())
    (draw,) = few_shot(test, pool, predictor, Protocol(3, draws=1), CONFIG).draws["plate"]
    assert (draw.result.normal, draw.result.anomalous) == (GOOD - 3, BAD)


def test_frames_of_a_line_of_which_no_one_says_what_they_are(drawn, predictor):
    (draw,) = few_shot(only(drawn, "plate"), None, predictor, Protocol(6, draws=1, share=0.2), CONFIG).draws["plate"]
    assert draw.left_out == 1
    assert (draw.result.normal, draw.result.anomalous) == (GOOD - 5, BAD - 1)
    assert draw.result.metrics["image_auroc"] == 1


def test_references_alone(drawn, predictor):
    protocol = Protocol(3, draws=1, references_only=True)
    found = few_shot(only(drawn, "plate"), None, predictor, protocol, CONFIG)
    assert found.as_json()["protocol"]["references_only"]
    (draw,) = found.draws["plate"]
    (fused,) = few_shot(only(drawn, "plate"), None, predictor, Protocol(3, draws=1), CONFIG).draws["plate"]
    assert draw.threshold != fused.threshold and draw.result.metrics["image_auroc"] == 1


def test_too_few_good_images(drawn, predictor):
    samples = [one for one in drawn.categories[0].samples if one.anomalous]
    bad = Dataset("mvtec", drawn.root, (Category("plate", "plate", tuple(samples)),), True, ())
    with pytest.raises(DataError, match="plate has 0 good images: too few to draw references from"):
        few_shot(bad, None, predictor, Protocol(1), CONFIG)


def test_means_and_deviations(drawn, predictor):
    found = few_shot(drawn, None, predictor, Protocol(2, draws=2), CONFIG)
    record = found.as_json()
    json.dumps(record, allow_nan=False)
    assert set(record["categories"]) == {"plate", "strip"}
    names = {*METRICS, "recall", "false_positive_rate"}
    for row in (*record["categories"].values(), record["mean"]):
        assert set(row) == names | {f"{name}_std" for name in names}
    for name in ("image_auroc", "recall"):
        rows = [[one[name] for one in record["draws"][part]] for part in ("plate", "strip")]
        assert record["categories"]["strip"][name] == pytest.approx(np.mean(rows[1]))
        assert record["categories"]["strip"][f"{name}_std"] == pytest.approx(np.std(rows[1]))
        assert record["mean"][name] == pytest.approx(np.mean(rows))
        assert record["mean"][f"{name}_std"] == pytest.approx(np.std(np.mean(rows, axis=0)))


def test_a_metric_that_is_undefined_stays_out_of_the_mean(drawn, predictor):
    blind = Dataset("mvtec", drawn.root, only(drawn, "plate").categories, False, ())
    one = few_shot(blind, None, predictor, Protocol(2, draws=1), CONFIG)
    both = FewShot(
        one.protocol, {**one.draws, **few_shot(only(drawn, "strip"), None, predictor, one.protocol, CONFIG).draws}
    )
    assert math.isnan(one.table()["plate"]["pixel_auroc"]) and one.as_json()["mean"]["pixel_auroc"] is None
    assert both.mean()["pixel_auroc"] == both.table()["strip"]["pixel_auroc"]
