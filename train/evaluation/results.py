"""What an evaluation found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


@dataclass(frozen=True)
class CategoryResult:
    """One row of the table.

    Attributes:
        metrics: By the names of `METRICS`, in [0, 1]; NaN where undefined.
        class_name: Words that stood for [class].
        normal: Normal images.
        anomalous: Anomalous images.
        unmasked: Anomalous images without a mask, which no pixel metric could use.
        skipped: Images that could not be read, each as `path: reason`.
    """

    metrics: Mapping[str, float]
    class_name: str
    normal: int
    anomalous: int
    unmasked: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """All rows.

    Attributes:
        dataset: Its name in the registry.
        root: Name of its folder.
        model: The predictor's `about`.
        trained: False where the model's answers mean nothing.
        categories: By name, in the dataset's order.
        seconds: That it took.
    """

    dataset: str
    root: str
    model: Mapping[str, Any]
    trained: bool
    categories: Mapping[str, CategoryResult]
    seconds: float

    @property
    def mean(self) -> dict[str, float]:
        """Unweighted means over the categories in which a metric is defined; NaN where it is in none."""
        return {name: _mean([row.metrics[name] for row in self.categories.values()]) for name in METRICS}

    @property
    def skipped(self) -> tuple[str, ...]:
        """Images that could not be read."""
        return tuple(line for row in self.categories.values() for line in row.skipped)

    def as_json(self) -> dict[str, Any]:
        """The content of `--json`: null where a metric is undefined."""
        return {
            "categories": {name: _nulls(row.metrics) for name, row in self.categories.items()},
            "mean": _nulls(self.mean),
            "dataset": self.dataset,
            "root": self.root,
            "model": dict(self.model),
            "trained": self.trained,
            "counts": {
                name: {
                    "class_name": row.class_name,
                    "normal": row.normal,
                    "anomalous": row.anomalous,
                    "unmasked": row.unmasked,
                    "skipped": list(row.skipped),
                }
                for name, row in self.categories.items()
            },
            "seconds": self.seconds,
        }


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _nulls(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(metrics[name]) else metrics[name] for name in METRICS}
