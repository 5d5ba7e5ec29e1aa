"""AUROC with 1, 4 and 16 references: ours against anomalib's PatchCore and PaDiM on the same features and draws.

    python -m kanoclip.benchmarks.studies.rivals.accuracy --root DATA --output rivals-accuracy.json

Each draw takes the same references for all, and measures on the same images with the same code. Ours runs through the
runtime, as it ships, once with the zero-shot map and once by the references alone; tiles are off, since anomalib's
models see whole images.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.rivals.models import LIKE_OURS, RivalPredictor, build, fit, lite_weights
from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.train.data.images import read_image
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.data.types import Category, Dataset
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.few_shot.references import Protocol, draw_references, learned, observed
from kanoclip.train.evaluation.predictor import BundlePredictor

OURS = "KAnoCLIP nano"
ALONE = f"{OURS}, references only"
METRICS = ("image_auroc", "pixel_auroc")
Row = dict[str, float]


def measured(dataset: Dataset, category: Category, predictor: Any) -> Row:
    """AUROC of one category, in percent; NaN where it has no masks."""
    results = evaluate(replace(dataset, categories=(category,)), predictor, EvaluationConfig(4, False, None))
    found = results.categories[category.name].metrics
    return {name: 100 * found[name] for name in METRICS}


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="MVTec trees.")
@click.option("--shots", multiple=True, type=click.IntRange(min=1), default=(1, 4, 16), show_default=True)
@click.option("--draws", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--category", "categories", multiple=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(root: Path, shots: tuple[int, ...], draws: int, categories: tuple[str, ...], output: Path | None) -> None:
    """Measure ours and anomalib's with few references."""
    dataset = open_dataset("mvtec", root, categories=categories)
    weights = lite_weights()
    ours = BundlePredictor(shipped_bundle(), "onnxruntime", "cpu", None)
    rows: list[dict[str, Any]] = []
    for category in dataset.categories:
        words = ours.class_for(category.class_name)
        for count in shots:
            found: dict[str, list[Row]] = defaultdict(list)
            for number in range(draws):
                protocol = Protocol(count, draws)
                drawn, rest = draw_references(category, None, protocol, np.random.default_rng(number))
                left = replace(category, samples=tuple(rest))
                references, _ = observed(ours.detector, words, drawn, None)
                for title, one in ((OURS, protocol), (ALONE, replace(protocol, references_only=True))):
                    memory, _ = learned(references, ours.detector.bundle.manifest, one, number)
                    ours.detector.rules.use_memory(words, memory)
                    found[title].append(measured(dataset, left, ours))
                images = [read_image(sample.image) for sample in drawn]
                for rival in LIKE_OURS:
                    if len(images) < rival.fewest:
                        continue
                    model = build(rival, weights)
                    fit(model, images)
                    found[rival.title].append(measured(dataset, left, RivalPredictor(model, rival.title)))
            ours.detector.rules.use_memory(words, None)
            for title, results in found.items():
                row: dict[str, Any] = {"category": category.name, "references": count, "model": title}
                for name in METRICS:
                    values = np.array([one[name] for one in results])
                    row |= {name: float(values.mean()), f"{name}_std": float(values.std())}
                rows.append({key: None if value != value else value for key, value in row.items()})
                shown = ", ".join(f"{name} {row[name]:.1f}" for name in METRICS)
                click.echo(f"{category.name}, {count} references, {title}: {shown}")
    ours.close()
    if output is not None:
        write_result(output, {"draws": draws, "rows": rows})


if __name__ == "__main__":
    main()
