"""Time and memory of the pixel metrics over many maps, and the same from scikit-learn on some of them.

    python -m kanoclip.benchmarks.studies.accuracy.metrics
    python -m kanoclip.benchmarks.studies.accuracy.metrics --maps 2000 --size 518 --anomalous 0.5

Maps are smooth fields in float32, cut off at 0 so that many pixels tie there; hardly any others do.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.metrics import PixelAccumulator, PixelMetrics

LabelledMap = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]
MIB = 1 << 20


def make_images(count: int, size: int, anomalous: float, distinct: int = 50) -> Iterator[LabelledMap]:
    """Masks of a few blobs each, and maps that rise there; fields repeat after `distinct`, values do not.

    Args:
        count: Images.
        size: Rows and columns.
        anomalous: Share of the pixels, in (0, 1).
        distinct: Different fields.
    """
    rng = np.random.default_rng(0)
    stock = []
    for _ in range(min(count, distinct)):
        blobs, other = _field(rng, size, size / 25), _field(rng, size, size / 50)
        stock.append((blobs > np.quantile(blobs, 1 - anomalous), np.tanh(np.maximum(blobs + other, 0) / 3)))
    for index in range(count):
        mask, scores = stock[index % len(stock)]
        yield mask, scores * np.float32(1 - index / (10 * count))


def measure(labelled: Iterator[LabelledMap], memory: int) -> tuple[PixelMetrics, float, int]:
    """Adds images one by one, as an evaluation does.

    Returns:
        The metrics, the seconds that adding and the result took, and the bytes that went to disk.
    """
    seconds = 0.0
    with PixelAccumulator(memory=memory) as pixels:
        for mask, scores in labelled:
            started = perf_counter()
            pixels.add(mask, scores)
            seconds += perf_counter() - started
        started = perf_counter()
        found = pixels.result()
        return found, seconds + perf_counter() - started, pixels.bytes_on_disk


def measure_sklearn(labelled: list[LabelledMap]) -> tuple[dict[str, float], float]:
    """The three metrics that scikit-learn has, and the seconds that they took."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    labels = np.concatenate([mask.ravel() for mask, _ in labelled])
    scores = np.concatenate([one.ravel() for _, one in labelled])
    started = perf_counter()
    precision, recall, _ = precision_recall_curve(labels, scores)
    found = {
        "auroc": float(roc_auc_score(labels, scores)),
        "average_precision": float(average_precision_score(labels, scores)),
        "f1_max": float((2 * precision * recall / np.maximum(precision + recall, 1e-300)).max()),
    }
    return found, perf_counter() - started


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _field(rng: np.random.Generator, size: int, scale: float) -> npt.NDArray[np.float32]:
    """A smooth random field of mean 0 and variance 1."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), scale)
    field: npt.NDArray[np.float32] = (noise - noise.mean()) / noise.std()
    return field


@click.command()
@click.option("--maps", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of maps.")
@click.option("--size", type=click.IntRange(min=8), default=336, show_default=True, help="Side of a map in pixels.")
@click.option(
    "--anomalous",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.04,
    show_default=True,
    help="Share of anomalous pixels.",
)
@click.option(
    "--memory", type=click.IntRange(min=0), default=512, show_default=True, help="MiB of sorted pixels before the disk."
)
@click.option(
    "--checked", type=click.IntRange(min=1), default=50, show_default=True, help="Maps given to scikit-learn as well."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(maps: int, size: int, anomalous: float, memory: int, checked: int, output: Path | None) -> None:
    """Measure the pixel metrics of random maps."""
    # The images in stock count as what was there before.
    images = make_images(maps, size, anomalous)
    first = next(images)
    before = peak_bytes()
    found, seconds, on_disk = measure(chain([first], images), memory * MIB)
    peak = peak_bytes()
    subset = list(make_images(min(checked, maps), size, anomalous))
    ours, our_seconds, _ = measure(iter(subset), memory * MIB)
    theirs, their_seconds = measure_sklearn(subset)
    result: dict[str, Any] = {
        "maps": maps,
        "size": size,
        "anomalous": anomalous,
        "memory_limit_mib": memory,
        "seconds": seconds,
        "peak_mib": peak / MIB,
        "peak_above_start_mib": (peak - before) / MIB,
        "disk_mib": on_disk / MIB,
        "metrics": asdict(found),
        "scikit_learn": {
            "maps": len(subset),
            "seconds": their_seconds,
            "our_seconds": our_seconds,
            "largest_difference": max(abs(getattr(ours, name) - value) for name, value in theirs.items()),
        },
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
