"""What `kanoclip-eval --suite` does: every row on every dataset that has a folder, all of it opened once before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError, SettingsError
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.evaluation.ablation.rows import ROWS
from kanoclip.train.evaluation.ablation.rows import Row as AblationRow
from kanoclip.train.evaluation.evaluate import EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import Predictor
from kanoclip.train.evaluation.results import Results
from kanoclip.train.evaluation.suite.file import Suite
from kanoclip.train.evaluation.suite.methods import TITLES, Frozen, at_sizes, open_checkpoint
from kanoclip.train.evaluation.suite.tables import Found, Measured

Bar = Callable[[int], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True)
class _Part:
    """A model of a row, and where it is measured; a row of checkpoints may have one for each dataset.

    Attributes:
        open: Loads it.
        names: Datasets.
    """

    open: Callable[[], Predictor]
    names: tuple[str, ...]


def run_suite(suite: Suite, config: EvaluationConfig, device: str, console: Console, bar: Bar) -> Found:
    """Measures everything that a suite names.

    Args:
        suite: From its file.
        config: How to go through the images.
        device: `auto`, `cpu` or `cuda`.
        console: For progress.
        bar: Makes a progress bar over a number of images.

    Raises:
        KanoclipError: A dataset or a model is no good, before anything is measured; or an image cannot be read.
    """
    plans = _plans(suite, device)
    with _about(suite):
        datasets = {name: open_dataset(name, root) for name, root in suite.roots.items()}
        table_3 = {name: _rows(suite, name, device, console) for name in suite.ablation if name in datasets}
        # Hours may lie before the last row: what is wrong with it is said now.
        for part in (*chain(*(parts for _, parts in plans)), *(part for rows in table_3.values() for _, part in rows)):
            part.open().close()
    for name in suite.missing:
        console.print(f"{name}: no folder in {suite.path}, left out", highlight=False, markup=False)

    def measured(part: _Part, title: str) -> tuple[str, dict[str, Results]]:
        predictor = part.open()
        size = predictor.about["image_size"][0]
        results = {}
        try:
            for name in part.names:
                console.print(f"{title}, {size} px: {name}", highlight=False, markup=False)
                with bar(sum(len(category.samples) for category in datasets[name].categories)) as advance:
                    results[name] = evaluate(datasets[name], predictor, config, advance)
        finally:
            predictor.close()
        return f"{title}, {size} px", results

    rows = []
    for title, parts in plans:
        found: dict[str, Results] = {}
        titled = title
        for part in parts:
            titled, results = measured(part, title)
            found |= results
        rows.append(Measured(titled, {name: found[name] for name in datasets if name in found}))
    ablation = {
        name: [(row, measured(part, row.name)[1][name]) for row, part in found_rows]
        for name, found_rows in table_3.items()
    }
    return Found(tuple(rows), ablation, suite.missing)


def _plans(suite: Suite, device: str) -> list[tuple[str, list[_Part]]]:
    """Rows of tables 1 and 2: what is trained by nobody, then checkpoints, each at every size."""
    names = tuple(suite.roots)
    frozen = [Frozen(kind, suite.backbone or "", suite.weights, None, suite.sigma) for kind in suite.baselines]
    plans = [
        (TITLES[method.kind], [_Part(partial(method.open, device), names)]) for method in at_sizes(frozen, suite.sizes)
    ]
    files: dict[Path, list[str]] = {}
    for name in names:
        if (file := suite.checkpoint(name)) is not None:
            files.setdefault(file, []).append(name)
    for size in (suite.sizes or (None,)) if files else ():
        parts = [
            _Part(partial(open_checkpoint, file, suite.weights, size, suite.sigma, device), tuple(own))
            for file, own in files.items()
        ]
        plans.append(("KAnoCLIP", parts))
    return plans


def _rows(suite: Suite, dataset: str, device: str, console: Console) -> list[tuple[AblationRow, _Part]]:
    """Table 3's rows whose checkpoints are there; the first has none, and is CLIP as it is."""
    rows = []
    for row in ROWS:
        file = suite.ablation[dataset] / f"{row.name}.safetensors"
        opened: Callable[[], Predictor]
        if not row.trains:
            opened = partial(Frozen("clip", suite.backbone or "", suite.weights, None, suite.sigma).open, device)
        elif file.is_file():
            opened = partial(open_checkpoint, file, suite.weights, None, suite.sigma, device)
        else:
            console.print(f"{file}: not there, left out of table 3", highlight=False, markup=False)
            continue
        rows.append((row, _Part(opened, (dataset,))))
    return rows


@contextmanager
def _about(suite: Suite) -> Iterator[None]:
    """Puts the suite file's name in front of what is wrong with that which it names."""
    try:
        yield
    except KanoclipError as error:
        raise SettingsError(f"{suite.path}: {error}") from error
