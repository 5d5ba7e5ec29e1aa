"""Refuses flags of `kanoclip-eval` that do not go together, before anything is loaded."""

from __future__ import annotations

import click

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.train.evaluation.ablation.options import AblationOptions
from kanoclip.train.evaluation.cli.options import EvalOptions
from kanoclip.train.evaluation.few_shot.options import FewShotOptions


def check_options(options: EvalOptions, few: FewShotOptions, ablation: AblationOptions) -> None:
    """Looks all flags through.

    Raises:
        click.UsageError: Some exclude each other, or one is missing.
        KanoclipError: An output would overwrite an input.
    """
    kind = _kind(options, ablation)
    _check_model(options, kind)
    _check_references(options, few, kind)
    _check_ablation(options, ablation)
    _check_texts(options)
    _check_places(options, ablation)


def _kind(options: EvalOptions, ablation: AblationOptions) -> str:
    """The flag that says what is measured."""
    kinds = {
        "--bundle": options.bundle is not None,
        "--checkpoint": options.checkpoint is not None,
        "--prompts": options.prompts is not None,
        "--ablation": ablation.ablation,
    }
    given = [flag for flag, is_given in kinds.items() if is_given]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other: give one of {', '.join(kinds)}.")
    return given[0] if given else "--bundle"


def _check_model(options: EvalOptions, kind: str) -> None:
    if options.backbone is None and kind in ("--prompts", "--ablation"):
        raise click.UsageError(f"{kind} needs --backbone.")
    if kind in ("--bundle", "--checkpoint") and options.backbone is not None:
        raise click.UsageError(f"--backbone is decided by the {kind[2:]}: leave it out.")
    if kind == "--bundle" and options.image_size is not None:
        raise click.UsageError("--image-size is decided by the bundle: leave it out.")
    for flag, plain in (("--no-vv", options.no_vv), ("--windows", options.windows)):
        if plain and (kind != "--prompts" or options.prompts == "learned"):
            raise click.UsageError(f"{flag} is for --prompts template or handcrafted.")
    if options.sigma is not None and kind not in ("--checkpoint", "--prompts"):
        raise click.UsageError("--sigma is for --checkpoint and --prompts; a bundle's Gaussian is in its graph.")
    if kind == "--bundle" and options.weights != "auto":
        raise click.UsageError("--weights is decided by the bundle: leave it out.")
    if kind != "--bundle" and options.tiles is not None:
        raise click.UsageError("--tiles is for bundles: leave it out.")
    if kind != "--bundle" and options.backend != "auto":
        raise click.UsageError("--backend is for bundles; checkpoints run in torch.")


def _check_references(options: EvalOptions, few: FewShotOptions, kind: str) -> None:
    if few.given and kind != "--bundle":
        raise click.UsageError("references are for bundles: leave --shots and --unlabelled out.")
    if few.shots and few.unlabelled:
        raise click.UsageError("--shots and --unlabelled exclude each other: run twice.")
    if few.references_only and not few.given:
        raise click.UsageError("--references-only is for references: give --shots or --unlabelled as well")
    if few.given and options.csv_file is not None:
        raise click.UsageError("--csv is for one table: take --output or --markdown.")


def _check_ablation(options: EvalOptions, ablation: AblationOptions) -> None:
    needed = {
        "--train-dataset": ablation.train_dataset,
        "--train-root": ablation.train_root,
        "--checkpoints": ablation.checkpoints,
    }
    for flag, value in needed.items():
        if ablation.ablation and value is None:
            raise click.UsageError(f"--ablation needs {flag}.")
        if not ablation.ablation and value is not None:
            raise click.UsageError(f"{flag} is for --ablation.")
    if ablation.training and not ablation.ablation:
        raise click.UsageError(f"{ablation.training[0]} is for --ablation, whose rows are trained with it.")
    if ablation.ablation and (options.sheet or options.csv_file or options.compare):
        raise click.UsageError(
            "--ablation writes --output and --markdown only, the paper's figures always beside ours."
        )


def _check_texts(options: EvalOptions) -> None:
    from kanoclip.train.evaluation.sheet import SUFFIXES

    if options.class_name is not None and not is_one_line(options.class_name):
        raise click.UsageError(f"--class-name {options.class_name!r} has a line end or a control character.")
    if options.class_name is not None and not options.class_name.strip():
        raise click.UsageError("--class-name is empty: leave it out, or name what the images show.")
    if options.sheet is not None and options.sheet.suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--sheet {options.sheet}: end its name in one of {', '.join(SUFFIXES)}.")


def _check_places(options: EvalOptions, ablation: AblationOptions) -> None:
    from kanoclip.train.data.files import read_below

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
            *(read_below(root) for root in (options.root, ablation.train_root) if root is not None),
        ],
    )
