"""How well a bundle does with a few references: drawn anew, several times, and never measured on themselves.

What is measured is what ships: memories as `kanoclip-learn` makes them, through the runtime's own engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import with_tiles
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import references_of, takes_memory
from kanoclip.runtime.detect.reference.fit import References, fit
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.unlabelled import select
from kanoclip.runtime.errors import DataError
from kanoclip.runtime.ops.learn.observe import Observer, plain, suited_tiles
from kanoclip.runtime.ops.learn.promise import promise
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.train.data.images import read_image
from kanoclip.train.data.types import Category, Dataset, Sample
from kanoclip.train.evaluation.evaluate import Case, EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import BundlePredictor
from kanoclip.train.evaluation.results import METRICS, CategoryResult

LEFT = 2
"""Good images that stay to be measured where a category has few."""
DECIDED = ("recall", "false_positive_rate")
"""What the memory's own threshold does, beside the metrics that know of none."""


@dataclass(frozen=True)
class Protocol:
    """What a draw is.

    Attributes:
        frames: How many references; with `share`, how many frames of a line.
        draws: How often they are drawn.
        share: Of the frames that are anomalous, though no one says which; None for good references.
        rate: False-alarm rate that each memory's threshold is set for, or the best that the references allow.
        tiles: How frames are cut; `auto` by the references' aspect, None for not at all.
        seed: Of the first draw.
    """

    frames: int
    draws: int = 5
    share: float | None = None
    rate: float = 0.05
    tiles: TileGrid | str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Draw:
    """One draw of one category.

    Attributes:
        result: The metrics on all that were not drawn.
        recall: Share of the anomalous that reach the memory's own image threshold, in [0, 1].
        false_positive_rate: Share of the good ones that do.
        threshold: That threshold.
        tiles: Rows and columns of tiles.
        left_out: Frames of a line that were left out of the memory.
        frames: How many were drawn: fewer than the protocol has where a category has no more.
    """

    result: CategoryResult
    recall: float
    false_positive_rate: float
    threshold: float
    tiles: tuple[int, int]
    left_out: int
    frames: int


@dataclass(frozen=True)
class FewShot:
    """What all draws found.

    Attributes:
        protocol: How they were drawn.
        draws: By category, in the dataset's order.
    """

    protocol: Protocol
    draws: dict[str, tuple[Draw, ...]]

    def table(self) -> dict[str, dict[str, float]]:
        """Means and, under `NAME_std`, deviations over the draws, by category; NaN where a metric is undefined."""
        return {name: _spread([_numbers(draw) for draw in draws]) for name, draws in self.draws.items()}

    def mean(self) -> dict[str, float]:
        """The categories' unweighted mean of each draw; its mean and deviation over the draws."""
        count = min(len(draws) for draws in self.draws.values())
        rounds = [[_numbers(draws[at]) for draws in self.draws.values()] for at in range(count)]
        return _spread([{name: _defined_mean([row[name] for row in rows]) for name in rows[0]} for rows in rounds])

    def as_json(self) -> dict[str, Any]:
        """The part of `--json` that is about draws: null where a metric is undefined."""
        protocol = self.protocol
        return {
            "categories": {name: _nulls(row) for name, row in self.table().items()},
            "mean": _nulls(self.mean()),
            "protocol": {
                "frames": protocol.frames,
                "draws": protocol.draws,
                "share": protocol.share,
                "false_alarm_rate": protocol.rate,
                "seed": protocol.seed,
            },
            "draws": {
                name: [
                    {
                        **_nulls(_numbers(draw)),
                        "threshold": draw.threshold,
                        "tiles": list(draw.tiles),
                        "left_out": draw.left_out,
                        "frames": draw.frames,
                        "normal": draw.result.normal,
                        "anomalous": draw.result.anomalous,
                    }
                    for draw in draws
                ]
                for name, draws in self.draws.items()
            },
        }


def few_shot(
    dataset: Dataset,
    pool: Dataset | None,
    predictor: BundlePredictor,
    protocol: Protocol,
    config: EvaluationConfig,
    advance: Callable[[], None] = lambda: None,
    observe: Callable[[Case], None] = lambda _: None,
) -> FewShot:
    """Measures a bundle with references.

    Args:
        dataset: What to measure on.
        pool: Where references come from, by category; None for the dataset itself, less what is drawn.
        predictor: The bundle; its detector is left without a memory.
        protocol: How to draw.
        config: How to go through the images.
        advance: Called after each image that is measured.
        observe: Given each case of the first draw.

    Raises:
        DataError: A category has too few images, or one cannot be read.
        KanoclipError: The bundle takes no memory, or its engine fails.
    """
    found: dict[str, tuple[Draw, ...]] = {}
    whole = predictor.detector.bundle
    for category in dataset.categories:
        own = None if pool is None else next((one for one in pool.categories if one.name == category.name), None)
        words = predictor.class_for(config.class_name or category.class_name)
        draws = []
        for number in range(protocol.draws):
            rng = np.random.default_rng(protocol.seed + number)
            drawn, rest = draw_references(category, own, protocol, rng)
            references, grid = observed(predictor.detector, words, drawn, protocol.tiles, config.reading)
            predictor.look(replace(whole, manifest=with_tiles(whole, grid)))
            memory, left_out = learned(references, predictor.detector.bundle.manifest, protocol, number)
            predictor.detector.rules.use_memory(words, memory)
            scores = _Scores(observe if number == 0 else None)
            results = evaluate(
                replace(dataset, categories=(replace(category, samples=tuple(rest)),)),
                predictor,
                config,
                advance,
                scores.add,
            )
            result = results.categories[category.name]
            draws.append(_decided(result, scores, memory, protocol.rate, grid, left_out, len(drawn)))
            predictor.detector.rules.use_memory(words, None)
        found[category.name] = tuple(draws)
    predictor.look(whole)
    return FewShot(protocol, found)


class _Scores:
    """Scores by label; of a case no more is held."""

    def __init__(self, observe: Callable[[Case], None] | None) -> None:
        self.scores: list[float] = []
        self.anomalous: list[bool] = []
        self._observe = observe

    def add(self, case: Case) -> None:
        self.scores.append(case.score)
        self.anomalous.append(case.sample.anomalous)
        if self._observe is not None:
            self._observe(case)


def draw_references(
    category: Category, own: Category | None, protocol: Protocol, rng: np.random.Generator
) -> tuple[list[Sample], list[Sample]]:
    """References, and what is left to be measured."""
    source = list(category.samples if own is None else own.samples)
    good = [sample for sample in source if not sample.anomalous]
    bad = [sample for sample in source if sample.anomalous]
    reserve = LEFT if own is None else 0
    most = len(good) - reserve
    if most < 1:
        raise DataError(f"{category.name} has {len(good)} good images: too few to draw references from")
    wanted_bad = 0 if protocol.share is None else round(protocol.share * protocol.frames)
    picks = list(rng.choice(len(good), min(protocol.frames - wanted_bad, most), replace=False))
    drawn = [good[i] for i in picks]
    if wanted_bad:
        drawn += [bad[i] for i in rng.choice(len(bad), min(wanted_bad, max(len(bad) - LEFT, 0)), replace=False)]
        drawn = [drawn[i] for i in rng.permutation(len(drawn))]
    taken = {sample.image for sample in drawn}
    return drawn, [sample for sample in category.samples if sample.image not in taken]


def observed(
    detector: Detector,
    words: str,
    drawn: Sequence[Sample],
    tiles: TileGrid | str | None,
    reading: Reading = AS_IT_IS,
) -> tuple[References, TileGrid | None]:
    """What the graph sees of references, and how they were cut.

    Args:
        detector: Of the bundle; it is left as it is.
        words: One of its classes.
        drawn: The references.
        tiles: A grid, `auto` for the one that suits their aspect, None for whole images.
        reading: How they are read.

    Raises:
        DataError: An image cannot be read.
        KanoclipError: The engine failed.
    """
    images = [read_image(sample.image, reading) for sample in drawn]
    if isinstance(tiles, str):
        height, width = np.median([image.shape[:2] for image in images], axis=0)
        tiles = suited_tiles(detector.bundle.manifest, round(height), round(width))
    observer = Observer(Detector(plain(detector.bundle), detector.backend), words, tiles)
    names = [sample.image.name for sample in drawn]
    return references_of(names, [observer.look(image) for image in images], observer.grid), observer.tiles


def learned(references: References, manifest: Manifest, protocol: Protocol, seed: int) -> tuple[ReferenceMemory, int]:
    """The memory, and how many frames were left out of it."""
    keep: npt.NDArray[np.bool_] | None = None
    left_out = 0
    if protocol.share is not None:
        chosen = select(references.descriptors, references.grid)
        used = np.flatnonzero(chosen.frames)
        left_out = len(references) - len(used)
        references, keep = references.only(used), chosen.cells[used]
    digest, rows = takes_memory(manifest)
    memory = fit(
        references,
        descriptor_sha256=digest,
        rows=rows,
        tiles=manifest.tiles,
        seed=seed,
        keep=keep,
    )
    return memory, left_out


def _decided(
    result: CategoryResult,
    scores: _Scores,
    memory: ReferenceMemory,
    rate: float,
    grid: TileGrid | None,
    left_out: int,
    frames: int,
) -> Draw:
    threshold = promise(memory, rate, None).calibration.image.threshold
    anomalous = np.array(scores.anomalous, bool)
    reached = np.array(scores.scores) >= threshold
    return Draw(
        result,
        float(reached[anomalous].mean()) if anomalous.any() else float("nan"),
        float(reached[~anomalous].mean()) if not anomalous.all() else float("nan"),
        threshold,
        (1, 1) if grid is None else (grid.rows, grid.columns),
        left_out,
        frames,
    )


def _numbers(draw: Draw) -> dict[str, float]:
    return {
        **{name: draw.result.metrics[name] for name in METRICS},
        **dict(zip(DECIDED, (draw.recall, draw.false_positive_rate), strict=True)),
    }


def _spread(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    def numbers() -> Iterator[tuple[str, float]]:
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            yield name, float(values.mean())
            yield f"{name}_std", float(values.std())

    return dict(numbers())


def _nulls(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in numbers.items()}


def _defined_mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
