"""Which flags of `kanoclip-eval` go together, and what it must not overwrite."""

from __future__ import annotations

import click

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.train.evaluation.command.options import Options


def check(options: Options) -> None:
    """Refuses flags that do not go together."""
    from kanoclip.train.data.files import read_below
    from kanoclip.train.evaluation.sheet import SUFFIXES

    kinds = {
        "--bundle": options.bundle is not None,
        "--checkpoint": options.checkpoint is not None,
        "--prompts": options.prompts is not None,
        "--ablation": options.ablation,
    }
    given = [flag for flag, is_given in kinds.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: give one of {', '.join(kinds)}.")
    given = given or ["--bundle"]
    if options.backbone is None and given[0] in ("--prompts", "--ablation"):
        raise click.UsageError(f"{given[0]} needs --backbone.")
    if given[0] in ("--bundle", "--checkpoint") and options.backbone is not None:
        raise click.UsageError(f"--backbone is decided by the {given[0][2:]}: leave it out.")
    if given[0] == "--bundle" and options.image_size is not None:
        raise click.UsageError("--image-size is decided by the bundle: leave it out.")
    for flag, plain in (("--no-vv", options.no_vv), ("--windows", options.windows)):
        if plain and (given[0] != "--prompts" or options.prompts == "learned"):
            raise click.UsageError(f"{flag} is for --prompts template or handcrafted.")
    if options.sigma is not None and given[0] not in ("--checkpoint", "--prompts"):
        raise click.UsageError("--sigma is for --checkpoint and --prompts; a bundle's Gaussian is in its graph.")
    if given[0] == "--bundle" and options.weights != "auto":
        raise click.UsageError("--weights is decided by the bundle: leave it out.")
    if given[0] != "--bundle" and options.backend != "auto":
        raise click.UsageError("--backend is for bundles; checkpoints run in torch.")
    few = options.shots or options.unlabelled
    if few and given[0] != "--bundle":
        raise click.UsageError("references are for bundles: leave --shots and --unlabelled out.")
    if options.shots and options.unlabelled:
        raise click.UsageError("--shots and --unlabelled exclude each other: run twice.")
    if options.tiles is not None and not few:
        raise click.UsageError("--tiles is for --shots and --unlabelled; otherwise the bundle decides.")
    if few and options.csv_file is not None:
        raise click.UsageError("--csv is for one table: take --output or --markdown.")
    training = {
        "--train-dataset": options.train_dataset,
        "--train-root": options.train_root,
        "--checkpoints": options.checkpoints,
    }
    for flag, value in training.items():
        if options.ablation and value is None:
            raise click.UsageError(f"--ablation needs {flag}.")
        if not options.ablation and value is not None:
            raise click.UsageError(f"{flag} is for --ablation.")
    if options.training and not options.ablation:
        raise click.UsageError(f"{options.training[0]} is for --ablation, whose rows are trained with it.")
    if options.ablation and (options.sheet or options.csv_file or options.compare):
        raise click.UsageError(
            "--ablation writes --output and --markdown only, the paper's figures always beside ours."
        )
    if options.class_name is not None and not is_one_line(options.class_name):
        raise click.UsageError(f"--class-name {options.class_name!r} has a line end or a control character.")
    if options.class_name is not None and not options.class_name.strip():
        raise click.UsageError("--class-name is empty: leave it out, or name what the images show.")
    if options.sheet is not None and options.sheet.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--sheet {options.sheet}: end its name in one of {', '.join(SUFFIXES)}.")
    places = {
        "--output": options.output,
        "--csv": options.csv_file,
        "--markdown": options.markdown_file,
        "--sheet": options.sheet,
    }
    inputs = {"the checkpoint": options.checkpoint, "the bundle": options.bundle}
    refuse_overwriting(
        [Written(flag, path) for flag, path in places.items() if path is not None],
        [
            *(Read(what, path, closed=what == "the bundle") for what, path in inputs.items() if path is not None),
            *(read_below(root) for root in (options.root, options.train_root) if root is not None),
        ],
    )
