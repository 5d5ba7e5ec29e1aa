"""`kanoclip-eval`: a bundle, a checkpoint or a training-free baseline, measured on a dataset."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.cli.options import BundleCommand, json_option, quiet_option, reading_options
from kanoclip.train.evaluation.ablation.command import run_ablation
from kanoclip.train.evaluation.ablation.options import AblationOptions, ablation_options, training_arguments
from kanoclip.train.evaluation.cli.checks import check_options
from kanoclip.train.evaluation.cli.measuring import run_evaluation
from kanoclip.train.evaluation.cli.options import EvalOptions, eval_options
from kanoclip.train.evaluation.few_shot.command import run_few_shot
from kanoclip.train.evaluation.few_shot.options import FewShotOptions, few_shot_options
from kanoclip.train.evaluation.suite.cli import check_suite_flags, run_suite_file

_EPILOG = """
Examples:

\b
  kanoclip-eval --dataset mvtec --root ~/data/mvtec                      # the bundle that is shipped
  kanoclip-eval line3.kanoclip --dataset mvtec --root ~/data/mvtec --output out.json
  kanoclip-eval --checkpoint vit-l.safetensors --dataset visa --root ~/data/visa --compare paper --sheet cases.jpg
  kanoclip-eval --prompts handcrafted --backbone vit-l-14-336 --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --tiles auto --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --shots 1,4 --draws 5 --tiles auto --dataset mvtec --root ~/data/mvtec --output few.json
  kanoclip-eval --unlabelled 32 --share 0.1 --dataset mvtec --root ~/data/mvtec
  kanoclip-eval --suite paper.toml --output tables.json --markdown tables.md
  kanoclip-eval --ablation --train-dataset visa --train-root ~/data/visa --dataset mvtec --root ~/data/mvtec \\
      --backbone vit-l-14-336 --kd-margin 1.5 --checkpoints ablation/

Exit codes: 0 all fine; 1 a failure, or images that were skipped; 2 wrong usage.
"""


@click.command(cls=BundleCommand, epilog=_EPILOG)
@eval_options
@few_shot_options
@ablation_options
@json_option
@quiet_option
@reading_options
@click.pass_context
def command(context: click.Context, /, bundle: str | None, **values: Any) -> int:
    """Measure image and pixel metrics, each category and their mean."""
    training = training_arguments(context, values)
    if values["suite_file"] is None:
        for flag in ("dataset", "root"):
            if values[flag] is None:
                raise click.UsageError(f"--{flag} is missing: name it, or a --suite file.")
    few = FewShotOptions(**_taken(values, FewShotOptions))
    ablation = AblationOptions(training=training, **_taken(values, AblationOptions))
    options = EvalOptions(bundle=None if bundle is None else Path(bundle), **values)
    if options.suite_file is not None:
        check_suite_flags(context)
        return run_suite_file(options, options.suite_file)
    check_options(options, few, ablation)
    if ablation.ablation:
        return run_ablation(options, ablation)
    return run_few_shot(options, few) if few.given else run_evaluation(options)


def _taken(values: dict[str, Any], group: type) -> dict[str, Any]:
    """The values of a group's options, taken out of all."""
    return {field.name: values.pop(field.name) for field in fields(group) if field.name in values}
