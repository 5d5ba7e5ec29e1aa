"""Refuses what `kanoclip-train` cannot do, or would overwrite, before anything is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.errors import TrainingError
from kanoclip.train.training.cli.options import TrainOptions


def check_options(options: TrainOptions, output: Path) -> None:
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
