"""nano against its baselines on real images that nothing of it was trained on, and what its thresholds do there.

python -m kanoclip.benchmarks.studies.accuracy.nano --root DATA --output nano.json --markdown nano.md
python -m kanoclip.benchmarks.studies.accuracy.nano --root DATA --training out0 --training out1 --output seeds.json

A training is a folder that `kanoclip.train.nano.make` filled: with several of them the table has their mean and spread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.studies.accuracy.classical import PatchStatistics
from kanoclip.benchmarks.studies.accuracy.self_similarity import SelfSimilarity
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.sources.files.images import read_image
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import Predictor
from kanoclip.train.evaluation.tables import markdown_table, percent
from kanoclip.train.weights import CHECKPOINT, CLIP, packaged

SHOWN = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
WORDS = "object"
"""The shipped bundle's class, so that every row has the same one."""
_BATCH = 8
Rows = dict[str, dict[str, Any]]


def models(weights: Path, checkpoint: Path, bundles: tuple[Path, ...]) -> dict[str, list[str]]:
    """Rows of the table: name -> the arguments of `kanoclip-eval`."""
    on_nano = ["--backbone", "nano", "--weights"]
    return {
        "seeded backbone, untrained head": ["--prompts", "learned", *on_nano, "none"],
        "plain CLIP-VV, handcrafted prompts": ["--prompts", "handcrafted", *on_nano, str(weights)],
        "untrained head": ["--prompts", "learned", *on_nano, str(weights)],
        "nano, torch": ["--checkpoint", str(checkpoint), "--weights", str(weights)],
        **{f"nano, {bundle.name}": ["--bundle", str(bundle)] for bundle in bundles},
        **{f"nano, {bundle.name}, tiles by aspect": ["--bundle", str(bundle), "--tiles", "auto"] for bundle in bundles},
    }


def measure(flags: list[str], root: Path) -> dict[str, Any]:
    """Metrics of every category and their mean, by `kanoclip-eval`."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "o.json"
        command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "eval", "--dataset", "mvtec", "--root", str(root)]
        subprocess.run([*command, "--class-name", WORDS, "--output", str(target), "--quiet", *flags], check=True)
        found = json.loads(target.read_text())
    return {**found["categories"], "mean": found["mean"]}


def baseline(predictor: Predictor, root: Path) -> dict[str, Any]:
    """The same for a predictor of this folder."""
    found = evaluate(open_dataset("mvtec", root), predictor, EvaluationConfig(class_name=WORDS)).as_json()
    return {**found["categories"], "mean": found["mean"]}


def decisions(bundle: Path, root: Path) -> dict[str, dict[str, float]]:
    """What a bundle's own thresholds decide, by category and as their mean.

    Returns:
        Per category `recall` (share of anomalous images called so), `false_positives` (share of good ones), and
        `without_region` (share of the images called anomalous that have no region); NaN where there are none.
    """
    rows: dict[str, dict[str, float]] = {}
    with Detector.load(bundle, backend="onnxruntime", device="cpu") as detector:
        for category in open_dataset("mvtec", root).categories:
            verdicts: list[tuple[bool, bool, bool]] = []
            for start in range(0, len(category.samples), _BATCH):
                samples = category.samples[start : start + _BATCH]
                images = []
                for sample in samples:
                    image = read_image(sample.image)
                    if isinstance(image, str):
                        raise click.ClickException(f"cannot read {sample.image} ({image}): copy it again")
                    images.append(image)
                for sample, found in zip(samples, detector.batch(images), strict=True):
                    verdicts.append((sample.anomalous, found.is_anomalous, bool(found.regions)))
            rows[category.name] = _shares(verdicts)
    names = ("recall", "false_positives", "without_region")
    rows["mean"] = {name: float(np.nanmean([row[name] for row in rows.values()])) for name in names}
    return rows


def _shares(verdicts: Sequence[tuple[bool, bool, bool]]) -> dict[str, float]:
    found = [called for anomalous, called, _ in verdicts if anomalous]
    false = [called for anomalous, called, _ in verdicts if not anomalous]
    bare = [not region for _, called, region in verdicts if called]
    return {
        name: float(np.mean(values)) if values else float("nan")
        for name, values in (("recall", found), ("false_positives", false), ("without_region", bare))
    }


def tables(rows: Rows) -> str:
    """One table for each metric: models down, categories across, the mean last."""
    parts = []
    for metric, heading in SHOWN.items():
        columns = [name for name, values in next(iter(rows.values())).items() if values[metric] is not None]
        lines = [[model, *(percent(row[name][metric]) for name in columns)] for model, row in rows.items()]
        parts.append("\n".join(markdown_table([heading, *columns], lines)))
    return "\n\n".join(parts) + "\n"


def decision_table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Recall and false positives of each bundle, categories across."""
    columns = list(next(iter(rows.values())))
    lines = [
        [f"{bundle}, {name.replace('_', ' ')}", *(percent(found[column][name]) for column in columns)]
        for bundle, found in rows.items()
        for name in ("recall", "false_positives", "without_region")
    ]
    return "\n".join(markdown_table(["at the shipped threshold", *columns], lines)) + "\n"


def spread(trainings: Sequence[Rows]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Mean and deviation over trainings, model by model: `{model: {category: {metric, metric_std}}}`."""
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for model in trainings[0]:
        for category in trainings[0][model]:
            row: dict[str, float | None] = {}
            for metric in SHOWN:
                values = [one[model][category][metric] for one in trainings]
                known = [value for value in values if value is not None]
                row[metric] = float(np.mean(known)) if known else None
                row[f"{metric}_std"] = float(np.std(known)) if known else None
            found.setdefault(model, {})[category] = row
    return found


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="MVTec tree.")
@click.option("--weights", type=_FILE, help="Default: the packaged ones.")
@click.option("--checkpoint", type=_FILE, help="Default: the packaged one.")
@click.option("--bundle", "bundles", type=click.Path(exists=True, path_type=Path), multiple=True, help="Repeatable.")
@click.option(
    "--training",
    "trainings",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Folder of a training, repeatable: mean and spread of torch's figures in place of the table.",
)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables.")
def main(
    root: Path,
    weights: Path | None,
    checkpoint: Path | None,
    bundles: tuple[Path, ...],
    trainings: tuple[Path, ...],
    output: Path | None,
    markdown: Path | None,
) -> None:
    """Measure all of them on every category."""
    if trainings:
        measured = [_all(models(one / CLIP, one / CHECKPOINT, ()), root) for one in trainings]
        found = spread(measured)
        for model, row in found.items():
            mean = row["mean"]
            click.echo(f"{model}: " + ", ".join(f"{key} {percent(value)}" for key, value in mean.items()))
        if output is not None:
            write_result(output, {"class_name": WORDS, "trainings": len(trainings), "models": found})
        return
    shipped = (shipped_bundle(), shipped_bundle().with_name("nano-int8.kanoclip"))
    rows = {
        "patch statistics (classical)": baseline(PatchStatistics(), root),
        "stem, self-similarity": baseline(SelfSimilarity(weights or "auto"), root),
    }
    chosen = bundles or shipped
    rows |= _all(models(weights or packaged(CLIP), checkpoint or packaged(CHECKPOINT), chosen), root)
    decided = {bundle.name: decisions(bundle, root) for bundle in chosen}
    text = tables(rows) + "\n" + decision_table(decided)
    click.echo(text, nl=False)
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")
    if output is not None:
        write_result(output, {"class_name": WORDS, "models": rows, "decisions": decided})


def _all(flags: dict[str, list[str]], root: Path) -> Rows:
    rows = {}
    for name, arguments in flags.items():
        rows[name] = measure(arguments, root)
        click.echo(f"{name}: { ({k: percent(rows[name]['mean'][k]) for k in SHOWN}) }", err=True)
    return rows


if __name__ == "__main__":
    main()
