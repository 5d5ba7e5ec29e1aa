"""`kanoclip-eval --ablation`: every row of table 3 is trained, measured and shown beside the paper's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.train.evaluation.ablation.options import AblationOptions
from kanoclip.train.evaluation.cli.measuring import give, measure
from kanoclip.train.evaluation.cli.options import EvalOptions
from kanoclip.train.evaluation.cli.predictors import set_threads, untrained
from kanoclip.train.training.cli.command import check_arguments

if TYPE_CHECKING:
    from kanoclip.train.evaluation.ablation.rows import Row
    from kanoclip.train.evaluation.predictor import Predictor
    from kanoclip.train.evaluation.results import Results


def run_ablation(options: EvalOptions, ablation: AblationOptions) -> int:
    """Trains what is not trained yet and measures all; the exit code."""
    from kanoclip.train.checkpoint import load_checkpoint
    from kanoclip.train.evaluation.ablation.rows import ablation_lines, print_ablation, run_rows
    from kanoclip.train.evaluation.predictor import CheckpointPredictor
    from kanoclip.train.evaluation.tables import markdown_table, write_text

    folder = ablation.checkpoints
    assert folder is not None  # `check_options` has refused its absence
    arguments = _training_arguments(options, ablation)
    # The first row is measured and not trained: what no other row could be trained with is said before it.
    check_arguments(arguments)
    set_threads(options.threads)

    def measure_row(row: Row, checkpoint: Path | None) -> Results:
        def open_model() -> Predictor:
            if checkpoint is None:
                return untrained(options, "template", row.name, plain=True)
            return CheckpointPredictor(load_checkpoint(checkpoint, options.weights), options.device, row.name)

        return measure(options, open_model)

    console = Console(stderr=options.as_json)
    done = run_rows(arguments, folder, measure_row, console)
    if not options.quiet:
        print_ablation(console, done, options.dataset)
    headings, lines = ablation_lines(done, options.dataset)
    if options.markdown_file is not None:
        write_text(options.markdown_file, "\n".join(markdown_table(headings, lines)) + "\n")
    if options.output is not None or options.as_json:
        record = {row.name: results.as_json() for row, results in done}
        give(options, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return 1 if any(results.skipped for _, results in done) else 0


def _training_arguments(options: EvalOptions, ablation: AblationOptions) -> list[str]:
    """What every row's `kanoclip-train` has in common."""
    arguments = ["--dataset", str(ablation.train_dataset), "--root", str(ablation.train_root)]
    for category in ablation.train_categories:
        arguments += ["--category", category]
    arguments += ["--backbone", str(options.backbone), "--weights", options.weights]
    if options.image_size is not None:
        arguments += ["--image-size", str(options.image_size)]
    if options.threads is not None:
        arguments += ["--threads", str(options.threads)]
    if options.class_name is not None:
        arguments += ["--class-name", options.class_name]
    arguments += ["--epochs", str(ablation.epochs), "--seed", str(options.seed), "--device", options.device]
    arguments += ["--batch-size", str(options.batch_size), *ablation.training]
    return [*arguments, "--quiet"] if options.quiet else arguments
