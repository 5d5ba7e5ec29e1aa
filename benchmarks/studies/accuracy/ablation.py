"""What each part of the method is worth on nano: heads learned without it, over several trainings of the tower.

    python -m kanoclip.benchmarks.studies.accuracy.ablation --root DATA --defects DEFECTS \
        --training out0 --training out1 --training out2 --scratch DIR --output ablation.json

A training is a folder that `kanoclip.train.nano.make` filled. Each head is learned and averaged with its first values
as the recipe does it; the same command goes on after a stop, for a row that is measured is not measured again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kanoclip.benchmarks.studies.accuracy.nano import SHOWN, WORDS, Rows, measure, spread
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.evaluation.tables import markdown_table
from kanoclip.train.nano.checkpoints import soften
from kanoclip.train.nano.make import REAL_KNOWLEDGE, learn_head
from kanoclip.train.weights import CHECKPOINT, CLIP

PARTS = {
    "without KnPL (prompts `a photo of a normal object`)": ("--no-knpl",),
    "without the KD loss": ("--kd-weight", "0"),
    "without CLIP-VV": ("--no-vv",),
    "without Bi-CMCI": ("--no-bicmci",),
    "without the Conv-Adapter": ("--no-conv-adapter",),
}
"""Rows: name -> what `kanoclip-train` is given."""
FULL, UNTRAINED = "all parts", "untrained head"


def learn(training: Path, defects: Path, flags: Sequence[str], seed: int, target: Path) -> None:
    """Learns one head without a part, and averages it with its first values.

    Args:
        training: Folder of the tower.
        defects: MVTec tree of real defects.
        flags: What leaves the part out.
        seed: Of the head.
        target: Checkpoint to write.

    Raises:
        KanoclipError: The training failed, or its checkpoint cannot be read.
    """
    learned = target.with_name("learned-" + target.name)
    if not learned.exists():
        cache = target.parent / f"cache-{training.name}"
        learn_head(learned, defects, REAL_KNOWLEDGE, training / CLIP, cache, 1, seed, flags)
    soften(learned, training / CLIP, target, seed)


def rows_of(training: Path, seed: int, root: Path, defects: Path, scratch: Path) -> Rows:
    """All rows of one training; each is written to SCRATCH as soon as it is measured.

    Args:
        training: Folder of the tower and of its full head.
        seed: Of the heads.
        root: Where to measure.
        defects: Where to learn.
        scratch: For checkpoints, features and figures.
    """
    on_nano = ["--backbone", "nano", "--weights", str(training / CLIP)]
    found: Rows = {}
    for number, (name, flags) in enumerate({UNTRAINED: (), FULL: (), **PARTS}.items()):
        place = scratch / f"{training.name}-{number}.json"
        if not place.exists():
            checkpoint = training / CHECKPOINT if name == FULL else place.with_suffix(".safetensors")
            if name in PARTS and not checkpoint.exists():
                learn(training, defects, flags, seed, checkpoint)
            of_head = ["--checkpoint", str(checkpoint), "--weights", str(training / CLIP)]
            figures = measure(["--prompts", "learned", *on_nano] if name == UNTRAINED else of_head, root)
            replace_file(place, json.dumps(figures).encode())
        found[name] = json.loads(place.read_text())
        click.echo(f"{training.name}, {name}: {_short(found[name]['mean'])}", err=True)
    return found


def table(rows: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """Rows down, metrics across, mean and deviation over the trainings."""
    lines = [[name, *(_with_spread(row["mean"], metric) for metric in SHOWN)] for name, row in rows.items()]
    return "\n".join(markdown_table(["", *SHOWN.values()], lines)) + "\n"


def _with_spread(mean: dict[str, float | None], metric: str) -> str:
    value, deviation = mean[metric], mean[f"{metric}_std"]
    return "-" if value is None or deviation is None else f"{100 * value:.1f} ± {100 * deviation:.1f}"


def _short(mean: dict[str, Any]) -> str:
    return " / ".join("-" if mean[metric] is None else f"{100 * mean[metric]:.1f}" for metric in SHOWN)


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--root", type=_FOLDER, required=True, help="MVTec tree to measure on.")
@click.option("--defects", type=_FOLDER, required=True, help="MVTec tree to learn on.")
@click.option("--training", "trainings", type=_FOLDER, multiple=True, required=True, help="Repeatable; seeds 0, 1, ...")
@click.option("--scratch", type=click.Path(path_type=Path), required=True, help="For checkpoints and features.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(root: Path, defects: Path, trainings: tuple[Path, ...], scratch: Path, output: Path | None) -> None:
    """Learn and measure every row on every training."""
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        measured = [rows_of(one, seed, root, defects, scratch) for seed, one in enumerate(trainings)]
    except KanoclipError as error:
        raise click.ClickException(str(error)) from error
    found = spread(measured)
    click.echo(table(found), nl=False)
    if output is not None:
        write_result(output, {"class_name": WORDS, "trainings": len(trainings), "models": found})


if __name__ == "__main__":
    main()
