"""What `kanoclip-eval --suite` does: every row on every dataset that has a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.data.types import Dataset
from kanoclip.train.evaluation.ablation.rows import ROWS
from kanoclip.train.evaluation.ablation.rows import Row as AblationRow
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import Predictor
from kanoclip.train.evaluation.results import Results
from kanoclip.train.evaluation.suite.file import Suite
from kanoclip.train.evaluation.suite.methods import TITLES, Frozen, at_sizes, open_checkpoint
from kanoclip.train.evaluation.suite.tables import Found, Measured

Bar = Callable[[int], AbstractContextManager[Callable[[], None]]]


def run_suite(suite: Suite, config: EvaluationConfig, device: str, console: Console, bar: Bar) -> Found:
    """Measures everything that a suite names.

    Args:
        suite: From its file.
        config: How to go through the images.
        device: `auto`, `cpu` or `cuda`.
        console: For progress.
        bar: Makes a progress bar over a number of images.

    Raises:
        KanoclipError: A dataset or a checkpoint is no good: before anything is measured, where that can be seen.
    """
    datasets = {name: open_dataset(name, root) for name, root in suite.roots.items()}
    for name in suite.missing:
        console.print(f"{name}: no folder in {suite.path}, left out", highlight=False, markup=False)

    def over(predictor: Predictor, names: Iterable[str], title: str) -> dict[str, Results]:
        results = {}
        try:
            for name in names:
                console.print(f"{title}: {name}", highlight=False, markup=False)
                results[name] = _measure(datasets[name], predictor, config, bar)
        finally:
            predictor.close()
        return results

    rows = []
    frozen = [Frozen(kind, suite.backbone or "", suite.weights, None, suite.sigma) for kind in suite.baselines]
    for method in at_sizes(frozen, suite.sizes):
        predictor = method.open(device)
        title = _title(TITLES[method.kind], predictor)
        rows.append(Measured(title, over(predictor, datasets, title)))
    for size in (suite.sizes or (None,)) if suite.checkpoints else ():
        files: dict[Path, list[str]] = {}
        for name in datasets:
            if (file := suite.checkpoint(name)) is not None:
                files.setdefault(file, []).append(name)
        found: dict[str, Results] = {}
        title = "KAnoCLIP"
        for file, names in files.items():
            predictor = open_checkpoint(file, suite.weights, size, suite.sigma, device)
            title = _title("KAnoCLIP", predictor)
            found |= over(predictor, names, title)
        rows.append(Measured(title, {name: found[name] for name in datasets if name in found}))
    ablation = {
        name: _ablation(suite, folder, datasets[name], config, device, console, bar)
        for name, folder in suite.ablation.items()
        if name in datasets
    }
    return Found(tuple(rows), ablation, suite.missing)


def _title(method: str, predictor: Predictor) -> str:
    return f"{method}, {predictor.about['image_size'][0]} px"


def _measure(dataset: Dataset, predictor: Predictor, config: EvaluationConfig, bar: Bar) -> Results:
    with bar(sum(len(category.samples) for category in dataset.categories)) as advance:
        return evaluate(dataset, predictor, config, advance)


def _ablation(
    suite: Suite,
    folder: Path,
    dataset: Dataset,
    config: EvaluationConfig,
    device: str,
    console: Console,
    bar: Bar,
) -> list[tuple[AblationRow, Results]]:
    """Table 3's rows whose checkpoints are there; the first has none, and is CLIP as it is."""
    done = []
    for row in ROWS:
        file = folder / f"{row.name}.safetensors"
        predictor: Predictor
        if not row.trains:
            predictor = Frozen("clip", suite.backbone or "", suite.weights, None, suite.sigma).open(device)
        elif file.is_file():
            predictor = open_checkpoint(file, suite.weights, None, suite.sigma, device)
        else:
            console.print(f"{file}: not there, left out of table 3", highlight=False, markup=False)
            continue
        try:
            console.print(f"{row.name}: {dataset.name}", highlight=False, markup=False)
            done.append((row, _measure(dataset, predictor, config, bar)))
        finally:
            predictor.close()
    return done
