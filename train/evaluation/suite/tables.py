"""Tables 1 to 3 with the published rows and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanoclip.train.data.layouts.names import CLASS_NAMES
from kanoclip.train.evaluation.ablation.rows import Row as AblationRow
from kanoclip.train.evaluation.ablation.rows import ablation_lines
from kanoclip.train.evaluation.paper import OTHERS, PROTOCOL, TABLES, paper_rows
from kanoclip.train.evaluation.results import Results
from kanoclip.train.evaluation.tables import DASH, caption, markdown_table, percent


@dataclass(frozen=True)
class Measured:
    """One of our rows.

    Attributes:
        title: Such as `CLIP, 336 px`.
        results: By dataset.
    """

    title: str
    results: Mapping[str, Results]


@dataclass(frozen=True)
class Found:
    """All that a suite has measured.

    Attributes:
        rows: Of tables 1 and 2.
        ablation: Rows of table 3, by dataset.
        missing: Datasets without a folder.
    """

    rows: tuple[Measured, ...]
    ablation: Mapping[str, Sequence[tuple[AblationRow, Results]]]
    missing: tuple[str, ...]


def table_lines(number: int, rows: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of table 1 or 2: image / pixel AUROC in percent for each dataset."""
    names = TABLES[number - 1]
    published: dict[str, dict[str, str]] = {}
    for name in names:
        for row in paper_rows(name):
            published.setdefault(row.method, {})[name] = _pair(row.image_auroc, row.pixel_auroc)
    for method, figures in OTHERS.items():
        if shown := {name: _pair(*figures[name]) for name in names if name in figures}:
            published[method] = shown
    lines = [[method, *(cells.get(name, DASH) for name in names)] for method, cells in published.items()]
    for ours in rows:
        means = {name: ours.results[name].mean for name in names if name in ours.results}
        cells = [
            f"{percent(means[name]['image_auroc'])} / {percent(means[name]['pixel_auroc'])}" if name in means else DASH
            for name in names
        ]
        lines.append([f"{ours.title} (ours)", *cells])
    return ["method", *names], lines


def suite_markdown(found: Found) -> str:
    """All tables as Markdown, with what is missing and what each of our rows is."""
    parts: list[str] = []
    for number in (1, 2):
        headings, lines = table_lines(number, found.rows)
        parts += [f"## Table {number}: image / pixel AUROC, percent", "", *markdown_table(headings, lines), ""]
    for dataset, rows in found.ablation.items():
        headings, lines = ablation_lines(rows, dataset)
        parts += [f"## Table 3: {dataset}", "", *markdown_table(headings, lines), ""]
    parts += [f"Published rows: {PROTOCOL}; AnomalyVFM and EdgeZSAD: as their papers are quoted in issue 25.", ""]
    for row in found.rows:
        parts += [f"- {row.title}: {caption(next(iter(row.results.values())))}"] if row.results else []
    seen = {name: set(one.categories) for row in found.rows for name, one in row.results.items()}
    if apart := [name for name, categories in seen.items() if categories != set(CLASS_NAMES[name])]:
        parts.append(f"- other categories than the published ones, so NOT comparable: {', '.join(apart)}")
    if found.missing:
        parts.append(f"- no folder given, so not measured: {', '.join(found.missing)}")
    return "\n".join(parts) + "\n"


def suite_json(found: Found, versions: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for `--output`."""
    return {
        "rows": {row.title: {name: one.as_json() for name, one in row.results.items()} for row in found.rows},
        "ablation": {
            dataset: {row.name: results.as_json() for row, results in rows} for dataset, rows in found.ablation.items()
        },
        "missing": list(found.missing),
        "versions": dict(versions),
    }


def _pair(image: float | None, pixel: float | None) -> str:
    return " / ".join(DASH if value is None else f"{value:.1f}" for value in (image, pixel))
