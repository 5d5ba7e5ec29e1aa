"""What the command does: one evaluation, few shots, a suite of them, or an ablation."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import DataError
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.train.evaluation.command.measuring import (
    bar,
    give,
    measure,
    open_bundle,
    open_predictor,
    open_untrained,
    set_threads,
)
from kanoclip.train.evaluation.command.options import Options

if TYPE_CHECKING:
    from kanoclip.train.evaluation.ablation.rows import Row
    from kanoclip.train.evaluation.predictor import Predictor
    from kanoclip.train.evaluation.results import Results


def evaluated(options: Options) -> int:
    """Measures one predictor; returns the exit code, as all of these do."""
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.evaluation.paper import paper_rows
    from kanoclip.train.evaluation.sheet import CaseKeeper, write_sheet
    from kanoclip.train.evaluation.tables import as_json, comma_separated, markdown, print_results, write_text

    keeper = CaseKeeper(options.sheet_cases) if options.sheet is not None else None
    results = measure(options, lambda: open_predictor(options), keeper)
    paper = paper_rows(options.dataset) if options.compare is not None else None
    if not options.quiet:
        print_results(Console(stderr=options.as_json), results, paper)
    if options.output is not None or options.as_json:
        versions = installed_versions(("kanoclip-edge", "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy"))
        give(options, as_json(results, paper, versions))
    if options.csv_file is not None:
        write_text(options.csv_file, comma_separated(results))
    if options.markdown_file is not None:
        write_text(options.markdown_file, markdown(results, paper))
    if options.sheet is not None and keeper is not None:
        write_sheet(options.sheet, keeper)
    if results.skipped:
        click.echo(f"warning: {len(results.skipped)} images were skipped: {results.skipped[0]}", err=True)
        return 1
    return 0


def few_shots(options: Options) -> int:
    """Measures a bundle with the memories of few good images, or of unlabelled ones."""
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.data.types import Dataset
    from kanoclip.train.evaluation.evaluate import EvaluationConfig
    from kanoclip.train.evaluation.few_shot import FewShot, Protocol, few_shot
    from kanoclip.train.evaluation.few_shot_tables import few_shot_markdown, print_few_shot, published
    from kanoclip.train.evaluation.sheet import CaseKeeper, write_sheet
    from kanoclip.train.evaluation.tables import write_text

    dataset = open_dataset(options.dataset, options.root, categories=options.categories)
    pool: Dataset | None = None
    if options.shots:
        with suppress(DataError):  # a dataset of test images alone
            pool = open_dataset(options.dataset, options.root, categories=options.categories, split="train")
    keeper = CaseKeeper(options.sheet_cases) if options.sheet is not None else None
    predictor = open_bundle(options)
    config = EvaluationConfig(options.batch_size, options.skip_bad, options.class_name, options.reading)
    found: dict[int, FewShot] = {}
    try:
        for frames in options.shots or (options.unlabelled or 0,):
            protocol = Protocol(
                frames,
                options.draws,
                None if options.shots else options.share,
                options.rate,
                predictor.detector.bundle.manifest.tiles if options.tiles is None else options.tiles,
                options.seed,
            )
            total = options.draws * sum(len(category.samples) for category in dataset.categories)
            with bar(options, total) as advance:
                found[frames] = few_shot(
                    dataset, pool, predictor, protocol, config, advance, keeper or (lambda _: None)
                )
    finally:
        predictor.close()
    beside = {frames: published(options.dataset, frames) if options.shots else [] for frames in found}
    if not options.quiet:
        for frames, one in found.items():
            print_few_shot(Console(stderr=options.as_json), one, beside[frames])
    if options.output is not None or options.as_json:
        last = list(found.values())[-1]
        versions = installed_versions(("kanoclip-edge", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy"))
        record = {
            **last.as_json(),
            "dataset": dataset.name,
            "root": dataset.root.resolve().name,
            "model": predictor.about,
            "versions": versions,
        }
        if len(found) > 1:
            record["by_shots"] = {str(frames): one.as_json() for frames, one in found.items()}
        give(options, json.dumps(record, indent=2, allow_nan=False) + "\n")
    if options.markdown_file is not None:
        write_text(options.markdown_file, "\n".join(few_shot_markdown(one, beside[n]) for n, one in found.items()))
    if options.sheet is not None and keeper is not None:
        write_sheet(options.sheet, keeper)
    return 0


_READING = {"damaged", "bit_depth", "max_pixels"}
_HOW = {"batch_size", "device", "threads", "skip_bad", "output", "markdown_file", "as_json", "quiet", *_READING}
_OF_A_SUITE = {"suite_file", *_HOW}
"""What may be given beside --suite; the file says the rest."""


def suites(context: click.Context, options: Options, path: Path) -> int:
    """Measures all that a suite file names."""
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.evaluation.evaluate import EvaluationConfig
    from kanoclip.train.evaluation.suite.command import run_suite
    from kanoclip.train.evaluation.suite.file import read_suite
    from kanoclip.train.evaluation.suite.tables import suite_json, suite_markdown
    from kanoclip.train.evaluation.tables import write_text

    for param in context.command.params:
        given = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.name not in _OF_A_SUITE:
            raise click.UsageError(f"{param.opts[0]} is not for --suite, whose file says what is measured.")
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


def ablations(options: Options) -> int:
    """Trains and measures the rows of the ablation table."""
    from kanoclip.train.checkpoint import load_checkpoint
    from kanoclip.train.evaluation.ablation.rows import ablation_lines, print_ablation, run_ablation
    from kanoclip.train.evaluation.predictor import CheckpointPredictor
    from kanoclip.train.evaluation.tables import markdown_table, write_text

    folder = options.checkpoints
    assert folder is not None  # `check` has refused its absence
    set_threads(options.threads)

    def of_row(row: Row, checkpoint: Path | None) -> Results:
        def opened() -> Predictor:
            if checkpoint is None:
                return open_untrained(options, "template", row.name, plain=True)
            return CheckpointPredictor(load_checkpoint(checkpoint, options.weights), options.device, row.name)

        return measure(options, opened)

    console = Console(stderr=options.as_json)
    done = run_ablation(_training_arguments(options), folder, of_row, console)
    if not options.quiet:
        print_ablation(console, done, options.dataset)
    headings, lines = ablation_lines(done, options.dataset)
    if options.markdown_file is not None:
        write_text(options.markdown_file, "\n".join(markdown_table(headings, lines)) + "\n")
    if options.output is not None or options.as_json:
        record = {row.name: results.as_json() for row, results in done}
        give(options, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return 1 if any(results.skipped for _, results in done) else 0


def _training_arguments(options: Options) -> list[str]:
    """What every row's `kanoclip-train` has in common."""
    arguments = ["--dataset", str(options.train_dataset), "--root", str(options.train_root)]
    for category in options.train_categories:
        arguments += ["--category", category]
    arguments += ["--backbone", str(options.backbone), "--weights", options.weights]
    if options.image_size is not None:
        arguments += ["--image-size", str(options.image_size)]
    if options.threads is not None:
        arguments += ["--threads", str(options.threads)]
    if options.class_name is not None:
        arguments += ["--class-name", options.class_name]
    arguments += ["--epochs", str(options.epochs), "--seed", str(options.seed), "--device", options.device]
    arguments += ["--batch-size", str(options.batch_size), *options.training]
    return [*arguments, "--quiet"] if options.quiet else arguments
