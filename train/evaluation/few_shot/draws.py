"""How well a bundle does with a few references: drawn anew, several times, and never measured on themselves.

What is measured is what ships: memories as `kanoclip-learn` makes them, through the runtime's own engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import with_tiles
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.ops.learn.promise import promise
from kanoclip.train.data.types import Dataset
from kanoclip.train.evaluation.evaluate import Case, EvaluationConfig, evaluate
from kanoclip.train.evaluation.few_shot.references import Protocol, draw_references, learned, observed
from kanoclip.train.evaluation.predictor import BundlePredictor
from kanoclip.train.evaluation.results import METRICS, CategoryResult

DECIDED = ("recall", "false_positive_rate")
"""What the memory's own threshold does, beside the metrics that know of none."""


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
                "references_only": protocol.references_only,
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
