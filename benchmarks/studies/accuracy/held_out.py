"""Learns on some categories of a dataset and measures on the one left out, for each of them in turn.

    python -m kanoclip.benchmarks.studies.accuracy.held_out --root DATA --backbone nano --weights auto
    python -m kanoclip.benchmarks.studies.accuracy.held_out --root DATA --backbone nano --weights auto --seeded text
    python -m kanoclip.benchmarks.studies.accuracy.held_out --root DATA --backbone nano --seeded all --seeds 3

nano's own text tower has been taught on patches what is abnormal, so that a head over it has little left to learn. A
seeded text tower knows nothing of the images: the untrained head is a random direction then, and whatever is above it
on the category left out was learned on the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from safetensors.torch import save_file

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.weights.load import load_clip

SHOWN = ("image_auroc", "pixel_auroc", "aupro")


def kanoclip(*arguments: object) -> None:
    """Runs one of the project's commands."""
    subprocess.run([sys.executable, "-m", "kanoclip.runtime.cli.main", *map(str, arguments)], check=True)


def measure(model: list[str], data: list[str], category: str, scratch: Path) -> dict[str, float | None]:
    """The metrics of a model on one category."""
    target = scratch / "o.json"
    kanoclip("eval", *model, *data, "--category", category, "--output", target, "--quiet")
    metrics: dict[str, float | None] = json.loads(target.read_text())["mean"]
    return metrics


@dataclass(frozen=True)
class Setting:
    """How each head is trained."""

    backbone: str
    class_name: str
    epochs: int
    lr_modules: float


def leave_each_out(root: Path, setting: Setting, weights: str, scratch: Path) -> dict[str, Any]:
    """For each category that has masks: the untrained head, and the one that learned on the others."""
    data = ["--dataset", "mvtec", "--root", str(root), "--class-name", setting.class_name]
    dataset = open_dataset("mvtec", root)
    names = [category.name for category in dataset.categories if any(sample.mask for sample in category.samples)]
    rows: dict[str, Any] = {}
    for left_out in names:
        trained_on = [name for name in names if name != left_out]
        checkpoint = scratch / f"{left_out}.safetensors"
        options = ["--backbone", setting.backbone, "--weights", weights, "--epochs", setting.epochs]
        categories = [part for name in trained_on for part in ("--category", name)]
        files = ["--lr-modules", setting.lr_modules, "--output", checkpoint, "--cache", scratch / "cache"]
        kanoclip("train", *data, *categories, *options, *files, "--quiet")
        untrained = ["--prompts", "learned", "--backbone", setting.backbone, "--weights", weights]
        rows[left_out] = {
            "learnt_on": trained_on,
            "untrained": measure(untrained, data, left_out, scratch),
            "trained": measure(["--checkpoint", str(checkpoint), "--weights", weights], data, left_out, scratch),
        }
        click.echo(f"{weights} {left_out}: {json.dumps(rows[left_out])}")
    return rows


def write_tower(backbone: str, weights: str, seeded: str, seed: int, path: Path) -> None:
    """Writes a CLIP whose text tower, or all of it, has seeded values.

    Args:
        backbone: Whose architecture.
        weights: Of the part that is not seeded.
        seeded: `text` or `all`.
        seed: Of the values.
        path: A safetensors file.
    """
    fresh = seeded_clip(get_backbone(backbone), seed).state_dict()
    if seeded == "text":
        taught = load_clip(get_backbone(backbone), weights)[0].state_dict()
        fresh |= {name: value for name, value in taught.items() if name.startswith("visual.")}
    save_file({name: value.contiguous() for name, value in fresh.items()}, path)


def mean_of(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Unweighted, over categories."""
    shown = list(rows)
    return {
        kind: {name: sum(row[kind][name] for row in shown) / len(shown) for name in SHOWN}
        for kind in ("untrained", "trained")
    }


@click.command()
@click.option("--root", type=click.Path(path_type=Path), required=True, help="MVTec tree.")
@click.option("--backbone", default="nano", show_default=True)
@click.option("--weights", default="auto", show_default=True, help="The backbone's weights: auto or a file.")
@click.option(
    "--seeded", type=click.Choice(["text", "all"]), help="The text tower, or both, with seeded values instead."
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="For --seeded: that many.")
@click.option("--class-name", default="object", show_default=True, help="Words for [class].")
@click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True)
@click.option("--lr-modules", type=float, default=1e-4, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(
    root: Path,
    backbone: str,
    weights: str,
    seeded: str | None,
    seeds: int,
    class_name: str,
    epochs: int,
    lr_modules: float,
    output: Path | None,
) -> None:
    """Leaves out each category that has masks."""
    setting = Setting(backbone, class_name, epochs, lr_modules)
    runs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for seed in range(1, seeds + 1) if seeded else [0]:
            own = scratch / str(seed)  # each tower's checkpoints apart from the others'
            own.mkdir()
            name, file = Path(weights).name, weights
            if seeded is not None:
                name, file = f"{seeded} seeded with {seed}", str(own / "tower.safetensors")
                write_tower(backbone, weights, seeded, seed, Path(file))
            runs[name] = leave_each_out(root, setting, file, own)
            click.echo(f"{name}: {json.dumps(mean_of(runs[name].values()))}")
    mean = mean_of(row for rows in runs.values() for row in rows.values())
    click.echo(json.dumps(mean, indent=2))
    if output is not None:
        means = {name: mean_of(rows.values()) for name, rows in runs.items()}
        write_result(output, {**asdict(setting), "seeded": seeded, "towers": runs, "tower_means": means, "mean": mean})


if __name__ == "__main__":
    main()
