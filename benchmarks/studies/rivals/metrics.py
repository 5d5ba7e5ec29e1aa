"""Seconds for pixel AUROC and AUPRO of the same maps: ours, torchmetrics' and anomalib's, in turns in one process.

    python -m kanoclip.benchmarks.studies.rivals.metrics --output rivals-metrics.json

Maps are those of `studies.accuracy.metrics`. Ours gives AUROC, average precision, largest F1 and AUPRO in one pass; the
others are called for one figure each. AUPRO is up to a false-positive rate of 0.3. All use one thread of the
processor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.studies.accuracy.metrics import LabelledMap, make_images
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.metrics import PixelAccumulator

Figures = dict[str, float]
LIMIT = 0.3
ANOMALOUS = 0.04


def ours(maps: list[LabelledMap]) -> Figures:
    """AUROC and AUPRO, and two figures more."""
    with PixelAccumulator(max_fpr=LIMIT) as pixels:
        for mask, scores in maps:
            pixels.add(mask, scores)
        found = pixels.result()
    return {"auroc": found.auroc, "aupro": found.aupro}


def torchmetrics_auroc(maps: list[LabelledMap]) -> Figures:
    """Torchmetrics' exact binary AUROC over all pixels."""
    import torch
    from torchmetrics.classification import BinaryAUROC

    metric = BinaryAUROC()
    for mask, scores in maps:
        metric.update(torch.from_numpy(scores), torch.from_numpy(mask))
    return {"auroc": float(metric.compute())}


def anomalib_aupro(maps: list[LabelledMap]) -> Figures:
    """Anomalib's AUPRO, whose thresholds are exact too."""
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=LIMIT)
    for mask, scores in maps:
        metric.update(torch.from_numpy(scores)[None], torch.from_numpy(mask)[None].int())
    return {"aupro": float(metric.compute())}


KINDS: dict[str, Callable[[list[LabelledMap]], Figures]] = {
    "ours, both and two more": ours,
    "torchmetrics, AUROC": torchmetrics_auroc,
    "anomalib, AUPRO": anomalib_aupro,
}


@click.command()
@click.option("--maps", "count", type=click.IntRange(min=2), default=200, show_default=True, help="Number of maps.")
@click.option("--size", type=click.IntRange(min=8), default=256, show_default=True, help="Side of a map in pixels.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(count: int, size: int, rounds: int, output: Path | None) -> None:
    """Measure all three."""
    import torch

    torch.set_num_threads(1)
    maps = list(make_images(count, size, ANOMALOUS))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    figures: dict[str, Figures] = {}
    for number in range(rounds + 1):
        for kind, run in KINDS.items():
            began = process_time()
            figures[kind] = run(maps if number else maps[:2])
            if number:
                seconds[kind].append(process_time() - began)
    found: dict[str, dict[str, Any]] = {
        kind: {"seconds": float(np.median(seconds[kind])), **figures[kind]} for kind in KINDS
    }
    for kind, one in found.items():
        click.echo(f"{kind}: " + ", ".join(f"{name} {value:.6g}" for name, value in one.items()))
    if output is not None:
        write_result(output, {"maps": count, "size": size, "rounds": rounds, "kinds": found})


if __name__ == "__main__":
    main()
