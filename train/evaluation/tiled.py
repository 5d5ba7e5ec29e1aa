"""Measures a bundle whose images are cut into tiles, each category as suits its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import with_tiles
from kanoclip.runtime.errors import DataError
from kanoclip.runtime.ops.learn.observe import suited_tiles
from kanoclip.runtime.sources.files.headers.header import image_size
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.train.data.images import read_image
from kanoclip.train.data.types import Category, Dataset
from kanoclip.train.evaluation.evaluate import Case, EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import BundlePredictor
from kanoclip.train.evaluation.results import CategoryResult, Results


def evaluate_tiled(
    dataset: Dataset,
    predictor: BundlePredictor,
    tiles: TileGrid | None,
    config: EvaluationConfig,
    advance: Callable[[], None] = lambda: None,
    observe: Callable[[Case], None] = lambda _: None,
) -> Results:
    """Measures a bundle in other tiles than its own, without any reference.

    Args:
        dataset: What to measure on.
        predictor: The bundle; afterwards it cuts images as before.
        tiles: The grid for all categories; None for the one that suits each by the median of its images' sides.
        config: How to go through it.
        advance: Called after each image.
        observe: Given each case, in the dataset's order.

    Raises:
        DataError: An image or mask cannot be read and `skip_bad` is off.
        KanoclipError: The bundle takes no other tiles, has no class for a category, or its engine fails.
    """
    whole = predictor.detector.bundle
    cuts: dict[str, Bundle] = {}
    for category in dataset.categories:  # what is refused is before the first image is measured
        predictor.class_for(config.class_name or category.class_name)
        grid = tiles or suited_tiles(whole.manifest, *_median_size(category, config.reading))
        cuts[category.name] = replace(whole, manifest=with_tiles(whole, grid))
    rows: dict[str, CategoryResult] = {}
    seconds, cut = 0.0, {}
    for category in dataset.categories:
        grid = cuts[category.name].manifest.tiles
        predictor.look(cuts[category.name])
        found = evaluate(replace(dataset, categories=(category,)), predictor, config, advance, observe)
        rows |= found.categories
        seconds += found.seconds
        if grid is not None:
            cut[category.name] = grid.title
    predictor.look(whole)
    model = {name: value for name, value in found.model.items() if name != "tiles"}
    if cut:
        titles = set(cut.values())
        same = len(titles) == 1 and len(cut) == len(dataset.categories)
        model["tiles"] = titles.pop() if same else ", ".join(f"{title} ({name})" for name, title in cut.items())
    return replace(found, model=model, categories=rows, seconds=seconds)


def _median_size(category: Category, reading: Reading) -> tuple[int, int]:
    """(height, width): of each side the median over the category's images; a square where none can be read."""
    sizes = [size for one in category.samples if (size := _size(one.image, reading)) is not None]
    height, width = np.median(sizes or [(1, 1)], axis=0)
    return round(height), round(width)


def _size(path: Path, reading: Reading) -> tuple[int, int] | None:
    """(height, width) of an image, from its header where that tells it; None for a bad one, which `evaluate` names."""
    try:
        return image_size(path) or read_image(path, reading).shape[:2]
    except DataError:
        return None
