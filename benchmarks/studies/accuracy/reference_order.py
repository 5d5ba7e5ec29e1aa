"""How far a threshold by references depends on their order, beside what the choice of rows and of references makes.

    python -m kanoclip.benchmarks.studies.accuracy.reference_order --root DATA --category solar_mono --output order.json

References are the first good images by name. Each number of them is fitted in several orders, with several seeds of the
choice of rows in the order by name, and so often with other good images of the set in their place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.seen import takes_memory
from kanoclip.runtime.detect.reference.fit import References, fit
from kanoclip.runtime.ops.learn.promise import promise
from kanoclip.runtime.ops.learn.verdict import RATE
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.evaluation.few_shot.references import observed

MOST_IMAGES = 60
"""Good images that references are drawn from."""


def thresholds(references: References, count: int, times: int, digest: str, rows: int) -> dict[str, list[float]]:
    """Image thresholds by `count` of the references.

    Args:
        references: In their order by name.
        count: How many of them are learned from, at most.
        times: How often each thing is varied, at least twice; orders begin with that by name and its reverse.
        digest: Of the descriptors.
        rows: Of the memory.

    Returns:
        By what is varied, each in [0, 1]; `references` only where there are more than `count`.
    """
    count = min(count, len(references))
    rng, first = np.random.default_rng(count), np.arange(count)

    def threshold(which: Sequence[int] | np.ndarray[Any, Any], seed: int = 0) -> float:
        memory = fit(references.only(np.asarray(which)), descriptor_sha256=digest, rows=rows, seed=seed)
        return promise(memory, RATE, None).calibration.image.threshold

    orders = [first, first[::-1], *(rng.permutation(count) for _ in range(times - 2))]
    found = {
        "order": [threshold(order) for order in orders],
        "seed": [threshold(first, seed) for seed in range(times)],
    }
    if count < len(references):
        draws = [np.sort(rng.choice(len(references), count, replace=False)) for _ in range(times)]
        found["references"] = [threshold(draw) for draw in draws]
    return found


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="MVTec tree.")
@click.option("--category", "categories", multiple=True, required=True, help="Which parts; may be repeated.")
@click.option("--references", "counts", type=int, multiple=True, default=(8, 20, 40), show_default=True)
@click.option("--times", type=click.IntRange(min=2), default=8, show_default=True, help="Of each variation.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="JSON file for the figures.")
def main(root: Path, categories: tuple[str, ...], counts: tuple[int, ...], times: int, output: Path) -> None:
    """Measure the shipped model's thresholds."""
    result: dict[str, Any] = {}
    with Detector.load(shipped_bundle(), backend="onnxruntime", device="cpu") as detector:
        manifest = detector.bundle.manifest
        digest, rows = takes_memory(manifest)
        for part in open_dataset("mvtec", root, categories=categories).categories:
            good = sorted((one for one in part.samples if not one.anomalous), key=lambda one: one.image)[:MOST_IMAGES]
            references, _ = observed(detector, manifest.classes[0], good, None)
            result[part.name] = {}
            for count in sorted({min(count, len(good)) for count in counts}):
                found = thresholds(references, count, times, digest, rows)
                result[part.name][str(count)] = {
                    name: {"thresholds": values, "deviation": float(np.std(values, ddof=1))}
                    for name, values in found.items()
                }
                click.echo(f"{part.name}, {count}: {json.dumps(result[part.name][str(count)])}")
    write_result(output, {"sets": result})


if __name__ == "__main__":
    main()
