"""Learns on some categories of a dataset and measures on the one left out, for each of them in turn.

python -m kanoclip.benchmarks.held_out --root DATA --backbone nano --weights WEIGHTS
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from kanoclip.benchmarks.results import write_result
from kanoclip.train.data.registry import open_dataset

SHOWN = ("image_auroc", "pixel_auroc", "aupro")


def kanoclip(*arguments: object) -> None:
    """Runs one of the project's commands."""
    subprocess.run([sys.executable, "-m", "kanoclip.runtime.cli.main", *map(str, arguments)], check=True)


def measure(model: list[str], data: list[str], category: str, scratch: Path) -> dict[str, float | None]:
    """The metrics of a model on one category."""
    target = scratch / "o.json"
    kanoclip("eval", *model, *data, "--category", category, "--json", target, "--quiet")
    metrics: dict[str, float | None] = json.loads(target.read_text())["mean"]
    return metrics


@click.command()
@click.option("--root", type=click.Path(path_type=Path), required=True, help="MVTec tree.")
@click.option("--backbone", default="nano", show_default=True)
@click.option("--weights", default="none", show_default=True, help="The backbone's weights: auto, none or a file.")
@click.option("--class-name", default="object", show_default=True, help="Words for [class].")
@click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True)
@click.option("--lr-modules", type=float, default=1e-4, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(
    root: Path, backbone: str, weights: str, class_name: str, epochs: int, lr_modules: float, output: Path | None
) -> None:
    """Leaves out each category that has masks."""
    data = ["--dataset", "mvtec", "--root", str(root), "--class-name", class_name]
    dataset = open_dataset("mvtec", root)
    names = [category.name for category in dataset.categories if any(sample.mask for sample in category.samples)]
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for left_out in names:
            learnt_on = [name for name in names if name != left_out]
            checkpoint = scratch / f"{left_out}.safetensors"
            options = ["--backbone", backbone, "--weights", weights, "--epochs", epochs, "--lr-modules", lr_modules]
            categories = [part for name in learnt_on for part in ("--category", name)]
            files = ["--output", checkpoint, "--cache", scratch / "cache"]
            kanoclip("train", *data, *categories, *options, *files, "--quiet")
            untrained = ["--prompts", "learned", "--backbone", backbone, "--weights", weights]
            rows[left_out] = {
                "learnt_on": learnt_on,
                "untrained": measure(untrained, data, left_out, scratch),
                "trained": measure(["--checkpoint", str(checkpoint), "--weights", weights], data, left_out, scratch),
            }
            click.echo(f"{left_out}: {json.dumps(rows[left_out])}")
    mean = {
        kind: {name: sum(row[kind][name] for row in rows.values()) / len(rows) for name in SHOWN}
        for kind in ("untrained", "trained")
    }
    click.echo(json.dumps(mean, indent=2))
    if output is not None:
        told: dict[str, Any] = {
            "backbone": backbone,
            "weights": Path(weights).name,
            "class_name": class_name,
            "epochs": epochs,
        }
        told["lr_modules"] = lr_modules
        write_result(output, {**told, "categories": rows, "mean": mean})


if __name__ == "__main__":
    main()
