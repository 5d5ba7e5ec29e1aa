"""Opens the model that `kanoclip-eval`'s flags name; torch is imported for checkpoints and backbones only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.evaluation.cli.options import EvalOptions

if TYPE_CHECKING:
    from kanoclip.train.evaluation.predictor import BundlePredictor, Predictor
    from kanoclip.train.model.kanoclip import Prompts


def open_predictor(options: EvalOptions) -> Predictor:
    """The one that the flags name, else the shipped bundle.

    Raises:
        KanoclipError: It cannot be opened.
    """
    if options.checkpoint is None and options.prompts is None:
        return bundle_predictor(options)
    set_threads(options.threads)
    if options.checkpoint is not None:
        from kanoclip.train.evaluation.suite.methods import open_checkpoint

        return open_checkpoint(options.checkpoint, options.weights, options.image_size, options.sigma, options.device)
    assert options.prompts is not None  # the first line has served everything else
    plain = options.no_vv or options.windows
    name = f"{options.prompts} prompts{' over windows' if options.windows else ''}, nothing trained"
    return untrained(options, options.prompts, name, plain=plain)


def bundle_predictor(options: EvalOptions) -> BundlePredictor:
    """A bundle in its engine.

    Raises:
        KanoclipError: It cannot be opened.
    """
    from kanoclip.runtime.bundle.bundle import BUILTIN
    from kanoclip.runtime.service.logs import log_lines
    from kanoclip.train.evaluation.predictor import BundlePredictor

    with log_lines(quiet=options.quiet):
        return BundlePredictor(options.bundle or Path(BUILTIN), options.backend, options.device, options.threads)


def untrained(options: EvalOptions, prompts: Prompts, name: str, *, plain: bool = False) -> Predictor:
    """A backbone whose head has learned nothing; a `plain` one has neither V-V path nor head modules.

    Raises:
        KanoclipError: The backbone's weights cannot be had, or no windows can be cut from it.
    """
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
    """Limits torch's CPU threads; None leaves them to it."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
