"""The whole recipe: the stem from PyPI, drawn images, pretraining, KAnoCLIP's own training, bundles, thresholds.

python -m kanoclip.train.nano.make --photos PHOTOS --defects DEFECTS --output DIR

Each step makes one thing in DIR and is passed over where that is there already: the same command goes on after a stop,
of the same commit. An hour on 2 cores is enough.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import click

from kanoclip.runtime.bundle.bundle import SUFFIX
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import KanoclipError, TrainingError
from kanoclip.runtime.system.installed import own_commit
from kanoclip.train.backbones import get_backbone
from kanoclip.train.nano.checkpoints import halve, halve_checkpoint, soften
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.scenes.scene import GOOD
from kanoclip.train.nano.tokens import RECORD, Drawing, draw_tokens
from kanoclip.train.nano.tree import ANY, KNOWLEDGE, split
from kanoclip.train.training.state import state_path
from kanoclip.train.weights import CHECKPOINT, CLIP

REAL_KNOWLEDGE = Path(__file__).with_name("defects_knowledge.json")
"""Descriptions of what is abnormal in the real sets that the shipped head learned on."""
_COMMIT = "commit"
"""File that says which commit began the folder."""


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        images: Drawn for pretraining.
        steps: Of pretraining.
        mixed: Images of the generated category `object`, which KAnoCLIP's training and int8's calibration see.
        others: Images of each held-out material and thing.
        epochs: Of KAnoCLIP's training.
        statistics: Images that the stem's statistics are taken from.
    """

    images: int = 8000
    steps: int = 1000
    mixed: int = 2000
    others: int = 60
    epochs: int = 1
    statistics: int = 1000


@dataclass(frozen=True)
class Sources:
    """Folders of real images.

    Attributes:
        photos: Photographs: grounds, textures and hard normal images; None for painted ones alone.
        defects: MVTec tree of real defects, on which the head learns; None for generated ones alone.
    """

    photos: Path | None
    defects: Path | None


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


def plan(folder: Path, scale: Scale, sources: Sources, *, seed: int = 0, workers: int = 2) -> list[Step]:
    """All steps in order.

    Args:
        folder: For everything.
        scale: How much.
        sources: Of real images.
        seed: Of pretraining and of the head; the drawn images are the same for every seed.
        workers: Processes that draw.
    """
    trunk, stem, tokens = folder / "trunk.safetensors", folder / "stem.safetensors", folder / "tokens"
    whole, clip = folder / "pretrained.safetensors", folder / CLIP
    tree, others = folder / "tree", folder / "other-classes"
    learned, softened, checkpoint = folder / "learned.safetensors", folder / "softened.safetensors", folder / CHECKPOINT
    photos = ("--photos", sources.photos) if sources.photos is not None else ()
    variant = get_backbone("nano").architecture()["stem_cfg"]["variant"].lower()
    drawing = Drawing(split(256, held_out=False), 1, scale.images, sources.photos, stem)
    of_tree = (*photos, "--each", 0, "--mixed", scale.mixed)
    of_others = (*photos, "--each", scale.others, "--mixed", 20 * scale.others, "--held-out", "--seed", 2000)
    draw = partial(_module, "kanoclip.train.nano.tree")
    steps = ("--steps", scale.steps, "--seed", seed)
    return [
        Step(
            "the stem's published weights",
            trunk,
            lambda: _module("kanoclip.train.nano.stem_weights", "--variant", variant, "--output", trunk),
        ),
        Step(
            "the stem's statistics",
            stem,
            lambda: _module(
                "kanoclip.train.nano.stem_statistics",
                *("--trunk", trunk, "--output", stem, "--images", scale.statistics, *photos),
            ),
        ),
        Step("images for pretraining", tokens / RECORD, lambda: _draw(tokens, drawing, workers)),
        Step(
            f"pretraining, {scale.steps} steps",
            whole,
            lambda: _module(
                "kanoclip.train.nano.pretrain", "--tokens", tokens, "--stem", stem, "--output", whole, *steps
            ),
        ),
        Step("CLIP in half precision", clip, lambda: halve(whole, clip)),
        Step("generated dataset", tree / KNOWLEDGE, lambda: draw("--output", tree, *of_tree)),
        Step("dataset of other classes", others / KNOWLEDGE, lambda: draw("--output", others, *of_others)),
        Step("prompts and head", learned, lambda: _learn(tree, sources.defects, clip, learned, scale.epochs, seed)),
        Step(
            "prompts and head, averaged with their first values",
            softened,
            lambda: soften(learned, clip, softened, seed),
        ),
        Step("prompts and head in half precision", checkpoint, lambda: halve_checkpoint(softened, clip, checkpoint)),
        *(
            step
            for name, flags in _bundles(tree).items()
            for step in _export(folder / (name + SUFFIX), clip, checkpoint, flags, others, sources)
        ),
    ]


def _bundles(tree: Path) -> dict[str, tuple[object, ...]]:
    """Both are for CPUs. The default computes in float32; its weights are stored in fp16."""
    return {"nano": ("--fp32",), "nano-int8": ("--int8-cpu", "--calibration-images", tree / ANY / "test" / GOOD)}


def _export(
    bundle: Path, clip: Path, checkpoint: Path, flags: tuple[object, ...], others: Path, sources: Sources
) -> tuple[Step, Step]:
    """A bundle, and its thresholds by good images that nothing was trained on."""
    arguments = ("export", "--checkpoint", checkpoint, "--weights", clip, *flags, "--output", bundle)
    report = bundle.with_suffix(".thresholds.json")
    chosen: tuple[object, ...] = ("--bundle", bundle, "--generated", others, "--report", report)
    chosen += ("--photos", sources.photos) if sources.photos is not None else ()
    chosen += ("--defects", sources.defects) if sources.defects is not None else ()
    return (
        Step(f"bundle {bundle.name}", bundle / MANIFEST_NAME, lambda: _kanoclip(*arguments)),
        Step(f"thresholds of {bundle.name}", report, lambda: _module("kanoclip.train.nano.thresholds", *chosen)),
    )


def _draw(folder: Path, drawing: Drawing, workers: int) -> None:
    started = monotonic()
    for done in draw_tokens(folder, drawing, workers):
        rate = done / (monotonic() - started)
        click.echo(f"\r{done} of {drawing.images} images, {rate:.0f} a second ", nl=False, err=True)
    click.echo("", err=True)


def _learn(tree: Path, defects: Path | None, clip: Path, checkpoint: Path, epochs: int, seed: int) -> None:
    """The head learns on real defects where there are any: on another dataset than the tower, as in the paper."""
    cache = tree.parent / "cache"
    if defects:
        learn_head(checkpoint, defects, REAL_KNOWLEDGE, clip, cache, epochs, seed)
    else:
        learn_head(checkpoint, tree, tree / KNOWLEDGE, clip, cache, epochs, seed, ("--category", ANY))


def learn_head(
    checkpoint: Path,
    root: Path,
    knowledge: Path,
    clip: Path,
    cache: Path,
    epochs: int,
    seed: int,
    flags: Sequence[str] = (),
) -> None:
    """Learns prompts and head with `kanoclip-train`; goes on where it was stopped.

    Args:
        checkpoint: To write.
        root: MVTec tree to learn on.
        knowledge: Descriptions of what is normal and abnormal there.
        clip: The backbone's weights.
        cache: Folder for the tower's features.
        epochs: Over the tree.
        seed: Of first values and of the order.
        flags: Further ones of `kanoclip-train`.

    Raises:
        TrainingError: It failed.
    """
    data = ("--dataset", "mvtec", "--root", root, "--class-name", ANY, "--knowledge", knowledge)
    model = ("--backbone", "nano", "--weights", clip, "--cache", cache, "--seed", seed)
    again = ("--resume",) if state_path(checkpoint).exists() else ()
    _kanoclip("train", *data, *model, "--epochs", epochs, "--output", checkpoint, *flags, *again)


def _kanoclip(*arguments: object) -> None:
    _module("kanoclip.runtime.cli.main", *arguments)


def _module(name: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", name, *map(str, arguments)], check=False)
    if done.returncode != 0:
        raise TrainingError(f"python -m {name} ended with {done.returncode}: the same command goes on from here")


def follow(steps: list[Step]) -> None:
    """Does what is not done yet.

    Raises:
        TrainingError: A step failed; the ones before it stay.
    """
    for step in steps:
        if step.output.exists():
            click.echo(f"{step.name}: there already ({step.output})", err=True)
            continue
        started = monotonic()
        click.echo(f"{step.name} ...", err=True)
        step.run()
        click.echo(f"{step.name}: {(monotonic() - started) / 60:.1f} minutes", err=True)


def begin(folder: Path, sources: Sources) -> None:
    """Claims a folder for this commit, and looks at the folders of real images before anything is made.

    Raises:
        TrainingError: Another commit began the folder, or a folder of real images is no good.
    """
    folder.mkdir(parents=True, exist_ok=True)
    claim, mine = folder / _COMMIT, own_commit()
    if claim.exists() and (began := claim.read_text().strip()) != mine:
        raise TrainingError(
            f"{folder} was begun by commit {began[:12]}, this is {mine[:12]}: check that one out to go on, or name "
            "another --output; what is there stays"
        )
    if sources.photos is not None:
        left_out = Photos.from_folder(sources.photos).left_out
        if left_out:
            path, reason = left_out[0]
            click.echo(f"{len(left_out)} photographs are left out, such as {path} ({reason})", err=True)
    claim.write_text(mine + "\n")


_FOLDER = click.Path(path_type=Path)


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for it all.")
@click.option("--photos", type=_FOLDER, help="Folder of photographs. Without one the images are painted ones alone.")
@click.option("--defects", type=_FOLDER, help="MVTec tree of real defects. Without one the head learns on drawn ones.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes that draw.")
def main(output: Path, photos: Path | None, defects: Path | None, seed: int, workers: int) -> None:
    """Make nano from PyPI, a folder of photographs and a tree of defects: weights, checkpoint and bundles."""
    sources = Sources(photos, defects)
    try:
        begin(output, sources)
        follow(plan(output, Scale(), sources, seed=seed, workers=workers))
    except KanoclipError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
