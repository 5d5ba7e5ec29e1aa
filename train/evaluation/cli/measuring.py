"""Goes through one dataset with one model, and writes what was found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.cli.terminal.bar import counted
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.train.evaluation.cli.options import EvalOptions
from kanoclip.train.evaluation.cli.predictors import open_predictor

if TYPE_CHECKING:
    from kanoclip.train.evaluation.predictor import Predictor
    from kanoclip.train.evaluation.results import Results
    from kanoclip.train.evaluation.sheet import CaseKeeper


def run_evaluation(options: EvalOptions) -> int:
    """Measures the model that the flags name on one dataset; the exit code."""
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


def measure(options: EvalOptions, open_model: Callable[[], Predictor], keeper: CaseKeeper | None = None) -> Results:
    """Opens dataset and model and goes through the images with a progress bar.

    Args:
        options: Which dataset, and how.
        open_model: Called once the dataset is known to be good.
        keeper: Gets every case; None for no sheet.

    Raises:
        KanoclipError: The dataset, the model or an image is no good.
    """
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
    from kanoclip.train.evaluation.predictor import BundlePredictor
    from kanoclip.train.evaluation.tiled import evaluate_tiled

    dataset = open_dataset(options.dataset, options.root, categories=options.categories)
    if dataset.problems:
        first = dataset.problems[0]
        click.echo(
            f"warning: {len(dataset.problems)} problems in {options.root}, such as {first.path}: {first.reason} "
            "(see `kanoclip-data check`)",
            err=True,
        )
    predictor = open_model()
    config = EvaluationConfig(options.batch_size, options.skip_bad, options.class_name, options.reading)
    observe = keeper or (lambda _: None)
    try:
        with bar(options, sum(len(category.samples) for category in dataset.categories)) as advance:
            if options.tiles is None or not isinstance(predictor, BundlePredictor):
                return evaluate(dataset, predictor, config, advance, observe)
            tiles = options.tiles if isinstance(options.tiles, TileGrid) else None
            return evaluate_tiled(dataset, predictor, tiles, config, advance, observe)
    finally:
        predictor.close()


def give(options: EvalOptions, record: str) -> None:
    """Writes the JSON where it is wanted."""
    from kanoclip.train.evaluation.tables import write_text

    if options.output is not None:
        write_text(options.output, record)
    if options.as_json:
        click.echo(record, nl=False)


def bar(options: EvalOptions, total: int) -> AbstractContextManager[Callable[[], None]]:
    """A progress bar on a terminal; what it gives is called after each image."""
    return counted(Console(stderr=True), "measuring", total, quiet=options.quiet)
