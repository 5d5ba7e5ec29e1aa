"""`kanoclip-eval --shots` and `--unlabelled`: a bundle with references of its own, drawn several times."""

from __future__ import annotations

import json
from contextlib import suppress

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import DataError
from kanoclip.train.evaluation.cli.measuring import bar, give
from kanoclip.train.evaluation.cli.options import EvalOptions
from kanoclip.train.evaluation.cli.predictors import bundle_predictor
from kanoclip.train.evaluation.few_shot.options import FewShotOptions


def run_few_shot(options: EvalOptions, few: FewShotOptions) -> int:
    """Measures every number of references; the exit code."""
    from kanoclip.runtime.system.installed import installed_versions
    from kanoclip.train.data.registry import open_dataset
    from kanoclip.train.data.types import Dataset
    from kanoclip.train.evaluation.evaluate import EvaluationConfig
    from kanoclip.train.evaluation.few_shot.draws import FewShot, few_shot
    from kanoclip.train.evaluation.few_shot.references import Protocol
    from kanoclip.train.evaluation.few_shot.tables import few_shot_markdown, print_few_shot, published
    from kanoclip.train.evaluation.sheet import CaseKeeper, write_sheet
    from kanoclip.train.evaluation.tables import write_text

    dataset = open_dataset(options.dataset, options.root, categories=options.categories)
    pool: Dataset | None = None
    if few.shots:
        with suppress(DataError):  # a dataset of test images alone
            pool = open_dataset(options.dataset, options.root, categories=options.categories, split="train")
    keeper = CaseKeeper(options.sheet_cases) if options.sheet is not None else None
    predictor = bundle_predictor(options)
    config = EvaluationConfig(options.batch_size, options.skip_bad, options.class_name, options.reading)
    found: dict[int, FewShot] = {}
    try:
        for frames in few.shots or (few.unlabelled or 0,):
            protocol = Protocol(
                frames,
                few.draws,
                None if few.shots else few.share,
                few.rate,
                predictor.detector.bundle.manifest.tiles if options.tiles is None else options.tiles,
                options.seed,
                few.references_only,
            )
            total = few.draws * sum(len(category.samples) for category in dataset.categories)
            with bar(options, total) as advance:
                found[frames] = few_shot(
                    dataset, pool, predictor, protocol, config, advance, keeper or (lambda _: None)
                )
    finally:
        predictor.close()
    beside = {frames: published(options.dataset, frames) if few.shots else [] for frames in found}
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
