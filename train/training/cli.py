"""`kanoclip-train`: a dataset with defects becomes a checkpoint."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError, TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kanoclip.train.data.types import Split
    from kanoclip.train.model.towers.blocks import GlobalToken
    from kanoclip.train.training.config import Amp, KdForm, NormalTexts, Optimizer, TrainConfig
    from kanoclip.train.training.job import Job

_EPILOG = """
Examples:

\b
  kanoclip-train --dataset mvtec --root ~/data/mvtec --backbone vit-l-14-336
  kanoclip-train --dataset mvtec --root parts --category screw --category nut --backbone nano --output nuts.safetensors
  accelerate launch --num_processes 4 -m kanoclip.runtime.cli.main train --dataset visa --root ~/data/visa

A run that was stopped (Ctrl-C saves it) goes on with the same command and --resume.
"""


@dataclass(frozen=True)
class _Options:
    """The command line; what each means is in its option's help."""

    dataset: str
    root: Path
    categories: tuple[str, ...]
    split: Split
    class_name: str | None
    backbone: str
    weights: str
    image_size: int | None
    output: Path | None
    overwrite: bool
    resume: bool
    epochs: int
    batch_size: int
    optimizer: Optimizer
    lr_prompts: float
    lr_modules: float
    weight_decay: float
    warmup_steps: int
    clip_grad: float
    kd_weight: float
    global_weight: float
    local_weight: float
    kd_form: KdForm
    kd_margin: float | None
    no_observed: bool
    normal_texts: NormalTexts
    ema: float
    amp: Amp
    augment: bool
    prompt_length: int
    global_token: GlobalToken
    no_knpl: bool
    no_vv: bool
    no_bicmci: bool
    no_conv_adapter: bool
    knowledge: tuple[Path, ...]
    cache_folder: Path | None
    no_cache: bool
    cache_size: float
    device: str
    threads: int | None
    workers: int
    save_minutes: float
    tensorboard: Path | None
    seed: int
    quiet: bool


@click.command(epilog=_EPILOG)
@click.option("--dataset", required=True, metavar="NAME", help="Layout of the dataset: see `kanoclip-data list`.")
@click.option("--root", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder.")
@click.option("--category", "categories", multiple=True, metavar="NAME", help="Train on these only; repeatable.")
@click.option(
    "--split",
    type=click.Choice(["test", "train", "all"]),
    default="test",
    show_default=True,
    help="Which images: the test split holds the defects (as APRIL-GAN and AnomalyCLIP train).",
)
@click.option("--class-name", metavar="WORDS", help="Words for [class] in every prompt. Default: each category's own.")
@click.option("--backbone", metavar="NAME", default="vit-l-14-336", show_default=True, help="The frozen CLIP.")
@click.option(
    "--weights",
    default="auto",
    show_default=True,
    metavar="auto|none|FILE",
    help="The backbone's weights: the published ones, seeded random ones, or a file.",
)
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Checkpoint to write (.safetensors). Default: ./BACKBONE-DATASET.safetensors.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint, or the state of a stopped run.")
@click.option("--resume", is_flag=True, help="Go on with the run that was stopped.")
@click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Over all processes.")
@click.option("--optimizer", type=click.Choice(["adam", "adamw"]), default="adam", show_default=True)
@click.option("--lr-prompts", type=float, default=1e-3, show_default=True, help="Peak rate of the prompts.")
@click.option("--lr-modules", type=float, default=1e-4, show_default=True, help="Peak rate of Bi-CMCI, Conv-Adapter.")
@click.option("--weight-decay", type=float, default=0.0, show_default=True)
@click.option("--warmup-steps", type=click.IntRange(min=0), default=100, show_default=True)
@click.option("--clip-grad", type=float, default=1.0, show_default=True, help="Largest gradient norm; 0: no limit.")
@click.option("--kd-weight", type=float, default=1.0, show_default=True, help="alpha of eq. 13.")
@click.option("--global-weight", type=float, default=1.0, show_default=True, help="beta of eq. 13.")
@click.option("--local-weight", type=float, default=1.0, show_default=True, help="gamma of eq. 13.")
@click.option(
    "--kd-form",
    type=click.Choice(["printed", "anchored"]),
    default="anchored",
    show_default=True,
    help="KD loss: eq. 2 as printed, or without what normal and abnormal descriptions share.",
)
@click.option(
    "--kd-margin", type=float, help="Margin of the KD loss's hinge, 0 to 2. Default: 0 printed, 1.75 anchored."
)
@click.option(
    "--no-observed",
    is_flag=True,
    help="Leave out a vision model's descriptions of single images.",
)
@click.option(
    "--normal-descriptions",
    "normal_texts",
    type=click.Choice(["derived", "written", "both"]),
    default="derived",
    show_default=True,
    help="Anchors of the KD loss: derived from the abnormal descriptions, the base's own `normal` ones, or both.",
)
@click.option("--ema", type=float, default=0.0, show_default=True, help="Decay of averaged weights; 0: none.")
@click.option("--amp", type=click.Choice(["no", "bf16", "fp16"]), default="no", show_default=True, help="Autocast.")
@click.option("--augment", is_flag=True, help="Random flips, turns, brightness, contrast. Turns the cache off.")
@click.option("--prompt-length", type=click.IntRange(1, 64), default=12, show_default=True, help="K of eq. 1.")
@click.option(
    "--global-token",
    type=click.Choice(["original", "local"]),
    default="original",
    show_default=True,
    help="Which path's class token is the global feature.",
)
@click.option("--no-knpl", is_flag=True, help="`a photo of a normal CLASS` in place of learned prompts (table 3).")
@click.option("--no-vv", is_flag=True, help="Leave the V-V path out.")
@click.option("--no-bicmci", is_flag=True, help="Leave Bi-CMCI out.")
@click.option("--no-conv-adapter", is_flag=True, help="Leave the Conv-Adapter out.")
@click.option(
    "--knowledge",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Knowledge base for the KD loss; repeatable. Default: the one that ships.",
)
@click.option(
    "--cache",
    "cache_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the tower's features are saved. Default: ~/.cache/kanoclip/features.",
)
@click.option("--no-cache", is_flag=True, help="Run the tower in every epoch.")
@click.option(
    "--cache-size", type=click.FloatRange(min=0), default=20.0, show_default=True, metavar="GIB", help="Its limit."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: torch's choice.")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that read.")
@click.option(
    "--save-minutes", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Between saved states."
)
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Write TensorBoard's files there.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--quiet", is_flag=True, help="No progress; warnings and errors remain.")
@click.pass_context
def command(context: click.Context, /, **_: Any) -> int:
    """Learn the prompts, Bi-CMCI and the Conv-Adapter on images with known defects; CLIP itself stays as it is."""
    options = _Options(**context.params)
    config = _config(options)
    output = options.output or Path(f"{options.backbone}-{options.dataset}.safetensors")
    _check(options, output)
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    accelerator = _accelerator(options)
    main = accelerator.is_main_process

    def notify(text: str) -> None:
        if main:
            click.echo(text, err=True)

    console = Console(stderr=True, quiet=not main)
    job = _job(options, config, output, console, notify)
    return _run(options, config, job, accelerator, console, notify)


def _config(options: _Options) -> TrainConfig:
    """The run's configuration, refused as a usage error where it makes no sense."""
    from kanoclip.train.backbones import get_backbone
    from kanoclip.train.model.kanoclip import ModelConfig
    from kanoclip.train.training.config import TrainConfig

    try:
        size = (options.image_size, options.image_size) if options.image_size else None
        backbone = get_backbone(options.backbone)
        model = ModelConfig(
            backbone=options.backbone,
            image_size=size or backbone.native_size,
            vv=not options.no_vv,
            bicmci=not options.no_bicmci,
            conv_adapter=not options.no_conv_adapter,
            prompts="template" if options.no_knpl else "learned",
            prompt_length=options.prompt_length,
            global_token=options.global_token,
            self_similarity=backbone.self_similarity,
            global_temperature=backbone.global_temperature,
        )
        return TrainConfig(
            model=model,
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=options.optimizer,
            lr_prompts=options.lr_prompts,
            lr_modules=options.lr_modules,
            weight_decay=options.weight_decay,
            warmup_steps=options.warmup_steps,
            clip_grad=options.clip_grad,
            kd_weight=options.kd_weight,
            global_weight=options.global_weight,
            local_weight=options.local_weight,
            kd_form=options.kd_form,
            kd_margin=options.kd_margin,
            observed=not options.no_observed,
            normal_texts=options.normal_texts,
            ema=options.ema,
            amp=options.amp,
            augment=options.augment,
            class_name=options.class_name,
            seed=options.seed,
        )
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error


def _check(options: _Options, output: Path) -> None:
    """Refuses what cannot work, or would overwrite something, before anything is loaded."""
    from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
    from kanoclip.train.data.files import read_below
    from kanoclip.train.training.state import state_path

    if options.class_name is not None and not is_one_line(options.class_name):
        raise click.UsageError(f"--class-name {options.class_name!r} has a line end or a control character.")
    if options.class_name is not None and not options.class_name.strip():
        raise click.UsageError("--class-name is empty: leave it out, or name what the images show.")
    if options.no_cache and options.cache_folder is not None:
        raise click.UsageError("--cache and --no-cache exclude each other.")
    if options.augment and options.cache_folder is not None:
        raise click.UsageError("--augment changes every image in every epoch: there is nothing to --cache.")
    if options.resume and options.overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    if options.tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        raise click.UsageError("--tensorboard needs tensorboard: pip install 'kanoclip-edge[tensorboard]'")
    if output.suffix != ".safetensors":
        raise click.UsageError(f"--output {output}: a checkpoint's name ends in .safetensors")
    if output.exists() and not options.overwrite:
        hint = "there is nothing to go on with" if options.resume else "--overwrite replaces it"
        raise click.UsageError(f"{output} exists already: {hint}, --output names another")
    if state_path(output).exists() and not (options.resume or options.overwrite):
        raise click.UsageError(f"{state_path(output)} is of a stopped run: --resume goes on, --overwrite starts anew")
    if options.resume and not state_path(output).exists():
        raise click.UsageError(f"no {state_path(output)} to go on from: leave --resume out")
    written = {"--output": output, "--cache": options.cache_folder, "--tensorboard": options.tensorboard}
    files = (("the knowledge base", one) for one in options.knowledge)
    weights = [("the weights", Path(options.weights))] if options.weights not in ("auto", "none") else []
    refuse_overwriting(
        [Written(flag, path) for flag, path in written.items() if path is not None]
        + [Written("the state of --output", state_path(output)), Written("--output", output.with_suffix(".json"))],
        [read_below(options.root), *(Read(what, path) for what, path in (*files, *weights))],
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot make the folder {output.parent}: {error.strerror}") from error


def _accelerator(options: _Options) -> Accelerator:
    import torch
    from accelerate import Accelerator, DataLoaderConfiguration

    if options.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("torch sees no CUDA device: use --device cpu, or install torch's CUDA build and a driver")
    accelerator = Accelerator(
        cpu=options.device == "cpu",
        mixed_precision=options.amp,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        log_with="tensorboard" if options.tensorboard else None,
        project_dir=options.tensorboard,
    )
    if options.amp == "fp16" and accelerator.device.type == "cpu":
        raise click.UsageError("--amp fp16 needs a GPU: bf16 runs on CPUs too.")
    return accelerator


def _job(options: _Options, config: TrainConfig, output: Path, console: Console, notify: Callable[[str], None]) -> Job:
    """Reads dataset, knowledge base and model."""
    from kanoclip.train.checkpoint import build_model
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.knowledge.base import load_knowledge, merged, shipped_knowledge
    from kanoclip.train.training.job import CacheConfig, prepare

    dataset = open_dataset(options.dataset, options.root, categories=options.categories, split=options.split)
    for problem in dataset.problems[:3]:
        notify(f"warning: {problem.path}: {problem.reason}")
    if len(dataset.problems) > 3:
        notify(f"warning: {len(dataset.problems)} problems in all: see `kanoclip-data check`")
    files = options.knowledge
    base = merged([load_knowledge(path) for path in files]) if files else shipped_knowledge()
    loaded = build_model(config.model, options.weights, config.seed)
    if not loaded.weights.trained:
        notify(f"warning: {options.backbone} has {loaded.weights.origin} weights, which know nothing of images or text")
    cache = None
    if not (options.no_cache or config.augment):
        folder = options.cache_folder or _default_cache()
        cache = CacheConfig(folder, int(options.cache_size * 2**30))
    total = sum(len(category.samples) for category in dataset.categories)
    with counted(console, "reading images and masks", total, quiet=options.quiet) as advance:
        job = prepare(config, dataset, base, loaded, output, cache, advance)
    _describe(job, config, notify)
    return job


def _describe(job: Job, config: TrainConfig, notify: Callable[[str], None]) -> None:
    """Warns of images and classes that a loss will pass over."""
    unknown = sum(not image.known for image in job.images.images)
    if unknown:
        notify(f"warning: {unknown} anomalous images have no mask: the local loss passes them over")
    if config.model.prompts == "learned" and config.kd_weight > 0:
        missing = [name for name, texts in zip(job.class_names, job.knowledge, strict=True) if not texts.abnormal]
        if missing:
            notify(
                f"warning: the knowledge base has no entry for {', '.join(sorted(set(missing)))}: the KD loss passes "
                "them over (`kanoclip-knowledge build` makes one, --knowledge FILE reads it)"
            )


def _default_cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "kanoclip" / "features"


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Sets the event at the first SIGINT or SIGTERM; a second one ends the process as usual."""
    event = threading.Event()
    before: dict[int, Any] = {}

    def handle(number: int, _: object) -> None:
        event.set()
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield event
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def _run(
    options: _Options,
    config: TrainConfig,
    job: Job,
    accelerator: Accelerator,
    console: Console,
    notify: Callable[[str], None],
) -> int:
    """Trains; the exit code is 130 when a signal stopped it."""
    from kanoclip.train.training.progress import ConsoleListener
    from kanoclip.train.training.trainer import Trainer

    if options.tensorboard is not None:
        accelerator.init_trackers("kanoclip")
    listener = ConsoleListener(console, accelerator, tensorboard=options.tensorboard is not None, quiet=options.quiet)
    trainer = Trainer(config, job, accelerator, listener, options.workers)
    with _stop_on_signals() as stop, listener:
        outcome = trainer.run(resume=options.resume, save_every=options.save_minutes * 60, stop=stop.is_set)
    accelerator.end_training()
    if not outcome.finished:
        notify(f"stopped in epoch {outcome.progress.epoch + 1}: the same command with --resume goes on")
        return 130
    cache = job.images.cache
    if cache is not None and cache.use.note is not None:
        notify(f"warning: {cache.use.note}")
    if (acting := kd_shares(outcome.progress.history)) is not None and any(t.abnormal for t in job.knowledge):
        notify(f"KD loss active on {acting[0]:.0%} of the images at step 0, on {acting[1]:.0%} at the last step")
    if any(texts.abnormal for texts in job.knowledge) and (dead := dead_kd(config, outcome.progress.history)):
        notify(f"warning: {dead}")
    if not options.quiet:
        notify(f"checkpoint: {job.output} (measure it with kanoclip-eval, ship it with kanoclip-export)")
    return 0


def kd_shares(records: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Shares of the images inside the KD loss's hinge: at step 0 and at a run's last step; None where none is known.

    Args:
        records: The run's epochs (`Progress.history`).
    """
    first, last = (record.get("kd_active_at") for record in (records[0], records[-1])) if records else (None, None)
    return None if first is None or last is None else (float(first["first"]), float(last["last"]))


def dead_kd(config: TrainConfig, records: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning about a KD loss that has done nothing; None where it acted.

    Args:
        config: The run's.
        records: Its epochs' (`Progress.history`).
    """
    if any(record["kd_active"] > 0 for record in records):
        return None
    start = "the KD loss was 0 throughout (kd_active 0 in every epoch), its hinge being met from the start"
    if config.kd_form == "printed":
        return f"{start}: use --kd-form anchored, or a --kd-margin above {config.hinge_margin:g}"
    return (
        f"{start}: use a --kd-margin above {config.hinge_margin:g} (2 at most), or reword the knowledge base where a "
        "`background` says the same as the abnormal descriptions"
    )
