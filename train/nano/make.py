"""The whole recipe: photographs, four stages of pretraining, a dataset, KAnoCLIP's own training, bundles.

python -m kanoclip.train.nano.make --output DIR

Each step makes one thing in DIR and is passed over where that is there already: the same command goes on after a stop.
A night on 2 cores is enough; pretraining and `kanoclip-train` use a GPU where there is one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import click
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from kanoclip.runtime.bundle import SUFFIX
from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.files import replace_file
from kanoclip.runtime.manifest import MANIFEST_NAME
from kanoclip.train.checkpoint import load_checkpoint, save_checkpoint
from kanoclip.train.nano.photos import fetch
from kanoclip.train.nano.scene import GOOD
from kanoclip.train.nano.tree import ANY, KNOWLEDGE
from kanoclip.train.training.state import state_path
from kanoclip.train.weights import CHECKPOINT, CLIP

_DONE = "done"
GENTLY = ("--lr-modules", 1e-5, "--lr-prompts", 1e-4)
"""The tower has learnt from such pictures already; at kanoclip-train's own rates the head got worse at localising on
real ones (docs/nano.md)."""


@dataclass(frozen=True)
class Stage:
    """A stage of pretraining; each begins with the weights of the one before.

    Attributes:
        size: Side of the pictures in pixels.
        steps: Optimisation steps.
        lr: Peak learning rate.
        decay: Share of the steps, the last ones, in which the rate falls to zero.
    """

    size: int
    steps: int
    lr: float
    decay: float = 0.0


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        stages: Of pretraining: small pictures first, which are 2.6 times as fast; the last ones have the model's own
            size.
        batch_size: Pictures in a step.
        mixed: Pictures of the category `object`, which KAnoCLIP's training sees.
        others: Pictures of each held-out material and thing.
        epochs: Of KAnoCLIP's training.
    """

    stages: tuple[Stage, ...] = (
        Stage(160, 1400, 2e-3),
        Stage(160, 2000, 1e-3),
        Stage(256, 760, 1e-3, 1.0),
        Stage(256, 1800, 1e-3, 1.0),
    )
    batch_size: int = 32
    mixed: int = 4000
    others: int = 60
    epochs: int = 1


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


def plan(folder: Path, scale: Scale, *, photographs: bool = True, compiled: bool = False) -> list[Step]:
    """All steps in order.

    Args:
        folder: For everything.
        scale: How much.
        photographs: Textures of photographs, which are downloaded, beside the painted ones.
        compiled: Pretraining compiles the tower, which needs a C++ compiler.
    """
    photos, tree, others = folder / "photos", folder / "tree", folder / "other-classes"
    clip, learnt, checkpoint = folder / CLIP, folder / "learnt.safetensors", folder / CHECKPOINT
    textures = ("--photos", photos) if photographs else ()
    common = (*textures, *(("--compile",) if compiled else ()), "--batch-size", scale.batch_size)
    stages = _stages(folder, scale.stages, common)
    drawn = (*textures, "--image-size", scale.stages[-1].size)
    of_tree = (*drawn, "--each", 0, "--mixed", scale.mixed)
    of_others = (*drawn, "--each", scale.others, "--mixed", 20 * scale.others, "--held-out", "--seed", 2000)
    draw = partial(_module, "kanoclip.train.nano.tree")
    return [
        *([Step("photographs", photos / _DONE, lambda: _fetch(photos))] if photographs else []),
        *stages,
        Step("CLIP in half precision", clip, lambda: halve(stages[-1].output, clip)),
        Step("dataset", tree / KNOWLEDGE, lambda: draw("--output", tree, *of_tree)),
        Step("dataset of other classes", others / KNOWLEDGE, lambda: draw("--output", others, *of_others)),
        Step("prompts and head", learnt, lambda: _learn(tree, clip, learnt, scale.epochs)),
        Step("prompts and head in half precision", checkpoint, lambda: halve_checkpoint(learnt, clip, checkpoint)),
        *(
            step
            for name, flags in _bundles(tree).items()
            for step in _export(folder / (name + SUFFIX), clip, checkpoint, flags, others)
        ),
    ]


def _stages(folder: Path, stages: tuple[Stage, ...], common: tuple[object, ...]) -> list[Step]:
    """Pretraining; no stage sees a picture of another one."""
    steps: list[Step] = []
    for number, stage in enumerate(stages, start=1):
        output = folder / f"stage-{number}.safetensors"
        flags: tuple[object, ...] = ("--image-size", stage.size, "--steps", stage.steps, "--lr", stage.lr)
        flags += ("--decay", stage.decay, "--warmup-steps", 50 if steps else 100, "--seed", number - 1)
        flags += ("--initial", steps[-1].output) if steps else ()
        run = partial(_module, "kanoclip.train.nano.pretrain", "--output", output, *common, *flags)
        steps.append(Step(f"pretraining, stage {number}, {stage.steps} steps at {stage.size} pixels", output, run))
    return steps


def halve(source: Path, target: Path) -> None:
    """Writes weights in fp16.

    Raises:
        TrainingError: A value does not fit.
    """
    replace_file(target, save(_in_half(load_file(source), source)))


def halve_checkpoint(source: Path, clip: Path, target: Path) -> None:
    """Writes a checkpoint in fp16, so that a float32 graph of it is stored in fp16 without loss.

    Raises:
        TrainingError: A value does not fit.
        CheckpointError: The checkpoint or the weights cannot be read, or it cannot be written.
    """
    loaded = load_checkpoint(source, str(clip))
    learnt = _in_half(loaded.model.learnable(), source)
    training = json.loads(source.with_suffix(".json").read_text()).get("training")
    save_checkpoint(target, loaded.model, loaded.weights, learnt=learnt, training=training)


def _in_half(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    halved = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    for name, tensor in halved.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingError(f"{name} in {source} does not fit into fp16")
    return halved


def _bundles(tree: Path) -> dict[str, tuple[object, ...]]:
    """Both are for CPUs. The default computes in float32; its weights are stored in fp16."""
    return {"nano": ("--fp32",), "nano-int8": ("--int8-cpu", "--calibration-images", tree / ANY / "test" / GOOD)}


def _export(bundle: Path, clip: Path, checkpoint: Path, flags: tuple[object, ...], others: Path) -> tuple[Step, Step]:
    """A bundle, and its thresholds by the classes that the head has not learnt."""
    arguments = ("export", "--checkpoint", checkpoint, "--weights", clip, *flags, "--output", bundle)
    report = bundle.with_suffix(".thresholds.json")
    chosen = ("kanoclip.train.nano.thresholds", "--bundle", bundle, "--root", others, "--report", report)
    return (
        Step(f"bundle {bundle.name}", bundle / MANIFEST_NAME, lambda: _kanoclip(*arguments)),
        Step(f"thresholds of {bundle.name}", report, lambda: _module(*chosen)),
    )


def _fetch(folder: Path) -> None:
    fetch(folder)
    (folder / _DONE).touch()


def _learn(tree: Path, clip: Path, checkpoint: Path, epochs: int) -> None:
    data = ("--dataset", "mvtec", "--root", tree, "--knowledge", tree / KNOWLEDGE)
    model = ("--backbone", "nano", "--weights", clip, "--cache", tree.parent / "cache")
    again = ("--resume",) if state_path(checkpoint).exists() else ()
    _kanoclip("train", *data, "--category", ANY, *model, *GENTLY, "--epochs", epochs, "--output", checkpoint, *again)


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
        follow(plan(output, Scale(), photographs=not no_photos, compiled=shutil.which("c++") is not None))
    except TrainingError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
