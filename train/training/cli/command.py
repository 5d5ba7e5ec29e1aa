"""`kanoclip-train`: a dataset with defects becomes a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import TrainingError
from kanoclip.train.training.cli.checks import check_options
from kanoclip.train.training.cli.options import TrainOptions, run_config, train_options
from kanoclip.train.training.cli.preparing import read_job, read_knowledge
from kanoclip.train.training.cli.report import dead_kd, kd_shares

if TYPE_CHECKING:
    from accelerate import Accelerator

    from kanoclip.train.training.config import TrainConfig
    from kanoclip.train.training.job import Job

_EPILOG = """
Examples:

\b
  kanoclip-train --dataset mvtec --root ~/data/mvtec --backbone vit-l-14-336
  kanoclip-train --dataset mvtec --root parts --category screw --category nut --backbone nano --output nuts.safetensors
  accelerate launch --num_processes 4 -m kanoclip.runtime.cli.main train --dataset visa --root ~/data/visa

A run that was stopped (Ctrl-C saves it) goes on with the same command and --resume.
"""


@click.command(epilog=_EPILOG)
@train_options
@click.pass_context
def command(context: click.Context, /, **_: Any) -> int:
    """Learn the prompts, Bi-CMCI and the Conv-Adapter on images with known defects; CLIP itself stays as it is."""
    options = TrainOptions(**context.params)
    config = run_config(options)
    output = options.output or Path(f"{options.backbone}-{options.dataset}.safetensors")
    check_options(options, output)
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    accelerator = _accelerator(options)
    main = accelerator.is_main_process

    def notify(text: str) -> None:
        if main:
            click.echo(text, err=True)

    console = Console(stderr=True, quiet=not main)
    job = read_job(options, config, output, console, notify)
    return _run(options, config, job, accelerator, console, notify)


def check_arguments(arguments: Sequence[str]) -> None:
    """Says what a run with these arguments would be refused for, without one.

    Raises:
        click.UsageError: An argument is wrong, or two do not go together.
        KnowledgeError: A knowledge base cannot be read.
    """
    options = TrainOptions(**command.make_context("kanoclip-train", list(arguments)).params)
    run_config(options)
    read_knowledge(options.knowledge)


def _accelerator(options: TrainOptions) -> Accelerator:
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
    options: TrainOptions,
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
