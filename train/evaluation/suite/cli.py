"""`kanoclip-eval --suite`: the file is read, what it names is measured, and tables 1 to 3 are written."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.core import ParameterSource

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.train.evaluation.cli.measuring import bar, give
from kanoclip.train.evaluation.cli.options import EvalOptions
from kanoclip.train.evaluation.cli.predictors import set_threads

_READING = {"damaged", "bit_depth", "max_pixels"}
_BESIDE = {"suite_file", "batch_size", "device", "threads", "skip_bad", "output", "markdown_file", "as_json", "quiet"}
"""What may be given beside --suite; the file says the rest."""


def check_suite_flags(context: click.Context) -> None:
    """Refuses flags that the suite file decides.

    Raises:
        click.UsageError: One is given.
    """
    for param in context.command.params:
        given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.name not in _BESIDE | _READING:
            raise click.UsageError(f"{param.opts[0]} is not for --suite, whose file says what is measured.")


def run_suite_file(options: EvalOptions, path: Path) -> int:
    """Measures what a suite file names; the exit code."""
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.evaluation.evaluate import EvaluationConfig
    from kanoclip.train.evaluation.suite.command import run_suite
    from kanoclip.train.evaluation.suite.file import read_suite
    from kanoclip.train.evaluation.suite.tables import suite_json, suite_markdown
    from kanoclip.train.evaluation.tables import write_text

    suite = read_suite(path)
    places = {"--output": options.output, "--markdown": options.markdown_file}
    refuse_overwriting(
        [Written(flag, place) for flag, place in places.items() if place is not None], [Read("the suite file", path)]
    )
    set_threads(options.threads)
    console = Console(stderr=True, quiet=options.quiet)
    config = EvaluationConfig(options.batch_size, options.skip_bad, reading=options.reading)
    found = run_suite(suite, config, options.device, console, lambda total: bar(options, total))
    text = suite_markdown(found)
    if options.markdown_file is not None:
        write_text(options.markdown_file, text)
    if options.output is not None or options.as_json:
        versions = installed_versions(("kanoclip-edge", "torch", "open_clip_torch", "numpy"))
        give(options, json.dumps(suite_json(found, versions), indent=2, allow_nan=False) + "\n")
    if not (options.quiet or options.as_json):
        click.echo(text, nl=False)
    every = [one for row in found.rows for one in row.results.values()]
    every += [one for rows in found.ablation.values() for _, one in rows]
    return 1 if any(one.skipped for one in every) else 0
