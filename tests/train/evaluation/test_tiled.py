from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.errors import DataError, KanoclipError
from kanoclip.train.data.types import Category, Dataset, Sample
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import BundlePredictor
from kanoclip.train.evaluation.tiled import evaluate_tiled

CONFIG = EvaluationConfig(batch_size=2)


@pytest.fixture
def predictor(toy_bundle):
    one = BundlePredictor(toy_bundle, "onnxruntime", "cpu", 1)
    yield one
    one.close()


@pytest.fixture
def category(tmp_path):
    """Draws a category of height x width: dark good images, and bad ones with a bright spot and its mask."""

    def draw(name, height, width, spot=2):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(7)
        samples = []
        for number in range(8):
            image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
            mask, bad = None, number % 2 == 1
            if bad:
                y, x = int(rng.integers(height - spot)), int(rng.integers(width - spot))
                image[y : y + spot, x : x + spot] = 75
                drawn = np.zeros((height, width), np.uint8)
                drawn[y : y + spot, x : x + spot] = 255
                mask = folder / f"{number}_mask.png"
                cv2.imwrite(str(mask), drawn)
            path = folder / f"{number}.png"
            cv2.imwrite(str(path), image)
            samples.append(Sample(path, bad, mask, "bad" if bad else "good", "test"))
        return Category(name, name, tuple(samples))

    return draw


def dataset(tmp_path, *categories):
    return Dataset("mvtec", tmp_path, categories, True, ())


def test_each_category_is_cut_as_suits_its_shape(tmp_path, predictor, category):
    found = dataset(tmp_path, category("tall", 96, 32), category("square", 40, 40), category("wide", 40, 120))
    cases = []
    results = evaluate_tiled(found, predictor, None, CONFIG, observe=cases.append)
    shapes = {case.category: case.map.shape for case in cases}
    assert shapes["tall"][1] == 32 < shapes["tall"][0] and shapes["wide"][0] == 32 < shapes["wide"][1]
    assert shapes["square"] == (32, 32)
    assert all(case.mask.shape == case.map.shape for case in cases)
    assert list(results.categories) == ["tall", "square", "wide"] and len(cases) == 24
    assert results.model["tiles"] == "3x1 (tall), 1x3 (wide)"
    # Afterwards it sees whole images, as the bundle has it.
    assert predictor.size == (32, 32) and "tiles" not in predictor.about
    assert predictor.detector.rules.tiling.count == 1


def test_a_spot_that_a_whole_image_loses_is_found(tmp_path, predictor, category):
    long = dataset(tmp_path, category("tall", 240, 32))
    whole = evaluate(long, predictor, CONFIG).mean["image_auroc"]
    tiled = evaluate_tiled(long, predictor, None, CONFIG).mean["image_auroc"]
    assert tiled == 1 > whole + 0.1


def test_a_square_category_gives_what_it_gives_whole(tmp_path, predictor, category):
    square = dataset(tmp_path, category("square", 40, 40))
    whole, tiled = evaluate(square, predictor, CONFIG), evaluate_tiled(square, predictor, None, CONFIG)
    assert replace(tiled, seconds=0) == replace(whole, seconds=0)


def test_a_grid_that_is_given_serves_all(tmp_path, predictor, category):
    found = dataset(tmp_path, category("tall", 96, 32), category("square", 40, 40))
    results = evaluate_tiled(found, predictor, TileGrid(2, 2, 0.15), CONFIG)
    assert results.model["tiles"] == "2x2"


def test_a_header_without_a_size_and_a_missing_class(tmp_path, make_toy_bundle, category):
    tall = category("tall", 96, 32)
    # Another kind than its name says: the size comes from the pixels.
    cv2.imwrite(str(tmp_path / "x.webp"), cv2.imread(str(tall.samples[0].image)))
    (tmp_path / "x.webp").rename(tall.samples[0].image)
    two = BundlePredictor(
        make_toy_bundle(tmp_path / "two.kanoclip", classes=("bolt", "washer")), "onnxruntime", "cpu", 1
    )
    seen = []
    try:
        with pytest.raises(KanoclipError, match="neither 'tall' nor 'object'"):
            evaluate_tiled(dataset(tmp_path, tall), two, None, CONFIG, observe=seen.append)
        assert not seen
        named = evaluate_tiled(dataset(tmp_path, tall), two, None, replace(CONFIG, class_name="bolt"))
        assert named.model["tiles"] == "3x1"
    finally:
        two.close()


def test_images_too_small_for_the_tiles_are_named(tmp_path, predictor, category):
    tiny = dataset(tmp_path, category("tiny", 3, 9, spot=1))
    with pytest.raises(KanoclipError, match="too small for 4x4 tiles"):
        evaluate_tiled(tiny, predictor, TileGrid(4, 4, 0.15), CONFIG)


def test_images_that_cannot_be_read_are_left_out_where_that_is_asked_for(tmp_path, predictor, category):
    tall, lost = category("tall", 96, 32), category("lost", 96, 32)
    tall.samples[0].image.write_bytes(b"no image")
    for one in lost.samples:
        one.image.write_bytes(b"no image")
    both = dataset(tmp_path, tall, lost)
    with pytest.raises(DataError, match=r"0\.png.*--skip-bad leaves such images out"):
        evaluate_tiled(both, predictor, None, CONFIG)
    results = evaluate_tiled(both, predictor, None, replace(CONFIG, skip_bad=True))
    assert results.model["tiles"] == "3x1 (tall)"
    assert [len(one.skipped) for one in results.categories.values()] == [1, 8]
