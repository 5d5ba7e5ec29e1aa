"""Runs a predictor over a dataset and measures it. Memory does not grow with the number of images."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.metrics import PixelAccumulator, average_precision, f1_max, image_auroc
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.types import FloatMap, Image
from kanoclip.train.data.images import read_image
from kanoclip.train.data.masks import evaluation_mask, read_mask
from kanoclip.train.data.types import Category, Dataset, Sample
from kanoclip.train.evaluation.predictor import Predictor
from kanoclip.train.evaluation.results import METRICS, CategoryResult, Results

Mask = npt.NDArray[np.bool_]

_READERS = 2


@dataclass(frozen=True, slots=True)
class Case:
    """One image and its result.

    Attributes:
        category: Its category.
        sample: Where it lies and what it shows.
        image: uint8 [H, W, 3], BGR, as read.
        mask: Ground truth at the map's size, bool [h, w]; None where none is known.
        map: float32 [h, w] in [0, 1].
        score: In [0, 1].
    """

    category: str
    sample: Sample
    image: Image
    mask: Mask | None
    map: FloatMap
    score: float


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How to go through the images.

    Attributes:
        batch_size: Images given to the predictor at once.
        skip_bad: Leave out what cannot be read, and say so, in place of ending.
        class_name: Words for [class] in place of each category's own; None for its own.
        reading: How images are read.
    """

    batch_size: int = 8
    skip_bad: bool = False
    class_name: str | None = None
    reading: Reading = AS_IT_IS


def evaluate(
    dataset: Dataset,
    predictor: Predictor,
    config: EvaluationConfig,
    advance: Callable[[], None] = lambda: None,
    observe: Callable[[Case], None] = lambda _: None,
) -> Results:
    """Measures a predictor.

    Maps and masks are compared at the map's size, which is the model's or that of its tiles together; masks are resized
    by nearest neighbour, as AnomalyCLIP does.

    Args:
        dataset: What to measure on.
        predictor: Who answers.
        config: How to go through it.
        advance: Called after each image.
        observe: Given each case, in the dataset's order.

    Raises:
        DataError: An image or mask cannot be read and `skip_bad` is off.
        KanoclipError: The predictor has no class for a category, or fails.
    """
    started = perf_counter()
    # Before the first image: a missing class should not be found after an hour.
    words = {
        category.name: predictor.class_for(config.class_name or category.class_name) for category in dataset.categories
    }
    rows = {
        category.name: _category(
            category, words[category.name], dataset.pixel_labels, predictor, config, advance, observe
        )
        for category in dataset.categories
    }
    return Results(
        dataset=dataset.name,
        root=dataset.root.resolve().name,
        model=predictor.about,
        trained=predictor.trained,
        categories=rows,
        seconds=perf_counter() - started,
    )


def _category(
    category: Category,
    words: str,
    pixel_labels: bool,
    predictor: Predictor,
    config: EvaluationConfig,
    advance: Callable[[], None],
    observe: Callable[[Case], None],
) -> CategoryResult:
    labels: list[bool] = []
    scores: list[float] = []
    skipped: list[str] = []
    unmasked = 0
    with ExitStack() as stack:
        pixels = stack.enter_context(PixelAccumulator()) if pixel_labels else None
        read = stack.enter_context(_Reader(category.samples, predictor.size, config))
        while batch := list(islice(read, config.batch_size)):
            good = [(one, one.image) for one in batch if one.image is not None]
            answers = predictor.predict([image for _, image in good], words) if good else []
            for (one, image), (anomaly_map, score) in zip(good, answers, strict=True):
                labels.append(one.sample.anomalous)
                scores.append(score)
                if pixels is not None and one.mask is not None:
                    pixels.add(one.mask, anomaly_map)
                unmasked += one.mask is None
                observe(Case(category.name, one.sample, image, one.mask if pixel_labels else None, anomaly_map, score))
            skipped += [one.problem for one in batch if one.problem]
            for _ in batch:
                advance()
        whole = pixels.result() if pixels is not None else None
    truth, values = np.array(labels, bool), np.array(scores, np.float64)
    measured = [image_auroc(truth, values), average_precision(truth, values), f1_max(truth, values)]
    measured += [whole.auroc, whole.average_precision, whole.f1_max, whole.aupro] if whole else [math.nan] * 4
    return CategoryResult(
        metrics=dict(zip(METRICS, measured, strict=True)),
        class_name=words,
        normal=labels.count(False),
        anomalous=labels.count(True),
        unmasked=unmasked if pixel_labels else 0,
        skipped=tuple(skipped),
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """A sample's image and mask, or why there are none."""

    sample: Sample
    image: Image | None
    mask: Mask | None
    problem: str


class _Reader:
    """Reads images and masks ahead of the predictor, in order, at most two batches of them."""

    def __init__(self, samples: Sequence[Sample], size: tuple[int, int], config: EvaluationConfig) -> None:
        self.size, self.skip_bad, self.reading = size, config.skip_bad, config.reading
        self._rest = iter(samples)
        self._ahead = 2 * config.batch_size
        self._waiting: deque[Future[_Read]] = deque()

    def __enter__(self) -> Iterator[_Read]:
        self._pool = ThreadPoolExecutor(_READERS)
        return self._run()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> Iterator[_Read]:
        while True:
            for sample in islice(self._rest, self._ahead - len(self._waiting)):
                self._waiting.append(self._pool.submit(self._read, sample))
            if not self._waiting:
                return
            yield self._waiting.popleft().result()

    def _read(self, sample: Sample) -> _Read:
        try:
            image = read_image(sample.image, self.reading)
            mask = None
            if sample.mask is not None:
                mask = evaluation_mask(read_mask(sample.mask, image.shape[:2]), *self.size)
            elif not sample.anomalous:
                mask = np.zeros(self.size, bool)
        except DataError as error:
            if not self.skip_bad:
                raise DataError(f"{error} (--skip-bad leaves such images out)") from error
            return _Read(sample, None, None, str(error))
        return _Read(sample, image, mask, "")
