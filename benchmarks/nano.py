"""nano against its baselines on real pictures that nothing of it was trained on.

python -m kanoclip.benchmarks.nano --root DATA --output nano.json --markdown nano.md
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from kanoclip.benchmarks.classical import PatchStatistics
from kanoclip.benchmarks.results import write_result
from kanoclip.runtime.bundle import shipped_bundle
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.tables import markdown_table, percent
from kanoclip.train.weights import CHECKPOINT, CLIP, packaged

SHOWN = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
WORDS = "object"
"""What the shipped bundle is asked about, so everybody is."""


def models(weights: Path, checkpoint: Path, bundles: tuple[Path, ...]) -> dict[str, list[str]]:
    """Rows of the table: name -> what `kanoclip-eval` is told."""
    on_nano = ["--backbone", "nano", "--weights"]
    return {
        "seeded backbone, untrained head": ["--prompts", "learned", *on_nano, "none"],
        "plain CLIP-VV, handcrafted prompts": ["--prompts", "handcrafted", *on_nano, str(weights)],
        "untrained head": ["--prompts", "learned", *on_nano, str(weights)],
        "nano, torch": ["--checkpoint", str(checkpoint), "--weights", str(weights)],
        **{f"nano, {bundle.name}": ["--bundle", str(bundle)] for bundle in bundles},
    }


def measure(flags: list[str], root: Path) -> dict[str, Any]:
    """Metrics of every category and their mean, by `kanoclip-eval`."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "o.json"
        command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "eval", "--dataset", "mvtec", "--root", str(root)]
        subprocess.run([*command, "--class-name", WORDS, "--json", str(target), "--quiet", *flags], check=True)
        found = json.loads(target.read_text())
    return {**found["categories"], "mean": found["mean"]}


def classical(root: Path) -> dict[str, Any]:
    """The same for patch statistics."""
    found = evaluate(open_dataset("mvtec", root), PatchStatistics(), EvaluationConfig(class_name=WORDS)).as_json()
    return {**found["categories"], "mean": found["mean"]}


def tables(rows: dict[str, dict[str, Any]]) -> str:
    """One table for each metric: models down, categories across, the mean last."""
    parts = []
    for metric, heading in SHOWN.items():
        columns = [name for name, values in next(iter(rows.values())).items() if values[metric] is not None]
        lines = [[model, *(percent(row[name][metric]) for name in columns)] for model, row in rows.items()]
        parts.append("\n".join(markdown_table([heading, *columns], lines)))
    return "\n\n".join(parts) + "\n"


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="MVTec tree.")
@click.option("--weights", type=_FILE, help="Default: the packaged ones.")
@click.option("--checkpoint", type=_FILE, help="Default: the packaged one.")
@click.option("--bundle", "bundles", type=click.Path(exists=True, path_type=Path), multiple=True, help="Repeatable.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables.")
def main(
    root: Path,
    weights: Path | None,
    checkpoint: Path | None,
    bundles: tuple[Path, ...],
    output: Path | None,
    markdown: Path | None,
) -> None:
    """Measure all of them on every category."""
    shipped = (shipped_bundle(), shipped_bundle().with_name("nano-int8.kanoclip"))
    rows = {"patch statistics (classical)": classical(root)}
    for name, flags in models(
        weights or packaged(CLIP), checkpoint or packaged(CHECKPOINT), bundles or shipped
    ).items():
        rows[name] = measure(flags, root)
        click.echo(f"{name}: { ({k: percent(rows[name]['mean'][k]) for k in SHOWN}) }", err=True)
    text = tables(rows)
    click.echo(text, nl=False)
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")
    if output is not None:
        write_result(output, {"class_name": WORDS, "models": rows})


if __name__ == "__main__":
    main()
