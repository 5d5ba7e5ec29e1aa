"""What is measured, and how it goes through a dataset."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.evaluation.command.options import Options

if TYPE_CHECKING:
    from kanoclip.train.evaluation.predictor import BundlePredictor, Predictor
    from kanoclip.train.evaluation.results import Results
    from kanoclip.train.model.kanoclip import Prompts


def measure(options: Options, opened: Any, keeper: Any = None) -> Results:
    """Opens dataset and predictor and goes through the images with a progress bar."""
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate

    dataset = open_dataset(options.dataset, options.root, categories=options.categories)
    if dataset.problems:
        first = dataset.problems[0]
        click.echo(
            f"warning: {len(dataset.problems)} problems in {options.root}, such as {first.path}: {first.reason} "
            "(see `kanoclip-data check`)",
            err=True,
        )
    predictor: Predictor = opened()
    try:
        with bar(options, sum(len(category.samples) for category in dataset.categories)) as advance:
            return evaluate(
                dataset,
                predictor,
                EvaluationConfig(options.batch_size, options.skip_bad, options.class_name, options.reading),
                advance,
                keeper or (lambda _: None),
            )
    finally:
        predictor.close()


def bar(options: Options, total: int) -> AbstractContextManager[Callable[[], None]]:
    """A progress bar; what it gives is called after each image."""
    return counted(Console(stderr=True), "measuring", total, quiet=options.quiet)


def open_predictor(options: Options) -> Predictor:
    """The one that the flags name, else the shipped bundle. torch is imported for checkpoints and backbones only."""
    if options.checkpoint is None and options.prompts is None:
        return open_bundle(options)
    set_threads(options.threads)
    if options.checkpoint is not None:
        from kanoclip.train.evaluation.suite.methods import open_checkpoint

        return open_checkpoint(options.checkpoint, options.weights, options.image_size, options.sigma, options.device)
    assert options.prompts is not None  # the first line has served everything else
    plain = options.no_vv or options.windows
    name = f"{options.prompts} prompts{' over windows' if options.windows else ''}, nothing trained"
    return open_untrained(options, options.prompts, name, plain=plain)


def open_bundle(options: Options) -> BundlePredictor:
    """The bundle that the flags name, else the shipped one."""
    from kanoclip.runtime.bundle.bundle import BUILTIN
    from kanoclip.runtime.service.logs import log_lines
    from kanoclip.train.evaluation.predictor import BundlePredictor

    with log_lines(quiet=options.quiet):
        return BundlePredictor(options.bundle or Path(BUILTIN), options.backend, options.device, options.threads)


def open_untrained(options: Options, prompts: Prompts, name: str, *, plain: bool = False) -> Predictor:
    """A backbone whose head has learned nothing; a `plain` one has neither V-V path nor head modules."""
    from kanoclip.train.backbones import get_backbone
    from kanoclip.train.checkpoint import build_model
    from kanoclip.train.evaluation.predictor import CheckpointPredictor
    from kanoclip.train.evaluation.suite.methods import smooth
    from kanoclip.train.evaluation.suite.winclip import WindowPredictor
    from kanoclip.train.model.kanoclip import ModelConfig

    try:
        entry = get_backbone(options.backbone or "")
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
    size = (options.image_size, options.image_size) if options.image_size else entry.native_size
    on = not plain
    config = ModelConfig(
        entry.name,
        size,
        vv=on,
        bicmci=on,
        conv_adapter=on,
        prompts=prompts,
        self_similarity=entry.self_similarity,
        global_temperature=entry.global_temperature,
    )
    loaded = build_model(config, options.weights)
    smooth(loaded, options.sigma)
    return (WindowPredictor if options.windows else CheckpointPredictor)(loaded, options.device, name)


def set_threads(threads: int | None) -> None:
    """Gives torch so many threads; None leaves it the choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def give(options: Options, record: str) -> None:
    """Writes the JSON where it is wanted."""
    from kanoclip.train.evaluation.tables import write_text

    if options.output is not None:
        write_text(options.output, record)
    if options.as_json:
        click.echo(record, nl=False)
