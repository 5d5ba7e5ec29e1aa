"""The whole recipe: photographs, two stages of pretraining, a dataset, KAnoCLIP's own training, bundles.

python -m kanoclip.train.nano.make --output DIR

Each step makes one thing in DIR and is passed over where that is there already: the same command goes on after a stop.
A night on 2 cores is enough; pretraining and `kanoclip-train` use a GPU where there is one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import click
import torch
from safetensors.torch import load_file, save

from kanoclip.runtime.bundle import SUFFIX
from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.files import replace_file
from kanoclip.runtime.manifest import MANIFEST_NAME
from kanoclip.train.nano.photos import fetch
from kanoclip.train.nano.tree import ANY, KNOWLEDGE
from kanoclip.train.training.state import state_path
from kanoclip.train.weights import CHECKPOINT, CLIP

_DONE = "done"


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        sizes: Side of the pictures in the two stages of pretraining, pixels; the second is the model's own.
        steps: Steps of the two stages.
        batch_size: Pictures in a step.
        each: Pictures of each material and thing in the datasets.
        mixed: Pictures of their category `object`.
        epochs: Of KAnoCLIP's training.
    """

    sizes: tuple[int, int] = (160, 256)
    steps: tuple[int, int] = (6000, 1600)
    batch_size: int = 32
    each: int = 60
    mixed: int = 600
    epochs: int = 6


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: For people.
        output: Is there when the step is done.
        run: Does it.
    """

    name: str
    output: Path
    run: Callable[[], None]


def plan(folder: Path, scale: Scale, *, photographs: bool = True) -> list[Step]:
    """All steps in order.

    Args:
        folder: For everything.
        scale: How much.
        photographs: Textures of photographs, which are downloaded, beside the painted ones.
    """
    photos, tree, others = folder / "photos", folder / "tree", folder / "other-classes"
    first, second = folder / "stage-1.safetensors", folder / "stage-2.safetensors"
    clip, checkpoint = folder / CLIP, folder / CHECKPOINT
    textures = ("--photos", photos) if photographs else ()
    common = (*textures, "--batch-size", scale.batch_size, "--lr", 2e-3)
    flat = ("--image-size", scale.sizes[0], "--steps", scale.steps[0], "--decay", 0.0, "--warmup-steps", 100)
    falling = ("--image-size", scale.sizes[1], "--steps", scale.steps[1], "--decay", 1.0, "--warmup-steps", 50)
    drawn = (*textures, "--image-size", scale.sizes[1], "--each", scale.each, "--mixed", scale.mixed)
    from_first = ("--initial", first, "--seed", 1)
    of_others = ("--held-out", "--seed", 2000)
    pretrain, draw = partial(_module, "kanoclip.train.nano.pretrain"), partial(_module, "kanoclip.train.nano.tree")
    return [
        *([Step("photographs", photos / _DONE, lambda: _fetch(photos))] if photographs else []),
        Step("pretraining on small pictures", first, lambda: pretrain("--output", first, *common, *flat)),
        Step("pretraining on large ones", second, lambda: pretrain("--output", second, *common, *falling, *from_first)),
        Step("CLIP in half precision", clip, lambda: halve(second, clip)),
        Step("dataset", tree / KNOWLEDGE, lambda: draw("--output", tree, *drawn)),
        Step("dataset of other classes", others / KNOWLEDGE, lambda: draw("--output", others, *drawn, *of_others)),
        Step("prompts and head", checkpoint, lambda: _learn(tree, clip, checkpoint, scale.epochs)),
        *(_export(folder / (name + SUFFIX), clip, checkpoint, flags) for name, flags in _bundles(tree).items()),
    ]


def halve(source: Path, target: Path) -> None:
    """Writes weights in fp16.

    Raises:
        TrainingError: A value does not fit.
    """
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in load_file(source).items()}
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingError(f"{name} in {source} does not fit into fp16")
    replace_file(target, save(weights))


def _bundles(tree: Path) -> dict[str, tuple[object, ...]]:
    return {"nano": ("--fp16",), "nano-int8": ("--int8", "--calibration-images", tree / ANY)}


def _export(bundle: Path, clip: Path, checkpoint: Path, flags: tuple[object, ...]) -> Step:
    arguments = ("export", "--checkpoint", checkpoint, "--weights", clip, *flags, "--output", bundle)
    return Step(f"bundle {bundle.name}", bundle / MANIFEST_NAME, lambda: _kanoclip(*arguments))


def _fetch(folder: Path) -> None:
    fetch(folder)
    (folder / _DONE).touch()


def _learn(tree: Path, clip: Path, checkpoint: Path, epochs: int) -> None:
    data = ("--dataset", "mvtec", "--root", tree, "--knowledge", tree / KNOWLEDGE)
    model = ("--backbone", "nano", "--weights", clip, "--cache", tree.parent / "cache")
    again = ("--resume",) if state_path(checkpoint).exists() else ()
    _kanoclip("train", *data, *model, "--epochs", epochs, "--output", checkpoint, *again)


def _kanoclip(*arguments: object) -> None:
    _module("kanoclip.runtime.cli.main", *arguments)


def _module(name: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", name, *map(str, arguments)], check=False)
    if done.returncode != 0:
        raise TrainingError(f"python -m {name} ended with {done.returncode}: the same command goes on from here")


def follow(steps: list[Step]) -> None:
    """Does what is not done yet.

    Raises:
        TrainingError: A step failed; the ones before it are kept.
    """
    for step in steps:
        if step.output.exists():
            click.echo(f"{step.name}: there already ({step.output})", err=True)
            continue
        started = monotonic()
        click.echo(f"{step.name} ...", err=True)
        step.run()
        click.echo(f"{step.name}: {(monotonic() - started) / 60:.1f} minutes", err=True)


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for it all.")
@click.option("--no-photos", is_flag=True, help="Painted textures only: nothing is downloaded, and it gets worse.")
def main(output: Path, no_photos: bool) -> None:
    """Make nano from nothing: weights, checkpoint and bundles."""
    output.mkdir(parents=True, exist_ok=True)
    try:
        follow(plan(output, Scale(), photographs=not no_photos))
    except TrainingError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
