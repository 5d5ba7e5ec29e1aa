"""Few-shot results as tables, with what was published beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.train.evaluation.few_shot.draws import FewShot
from kanoclip.train.evaluation.tables import DASH, markdown_table, percent

COLUMNS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "pixel_auroc": "P-AUROC",
    "aupro": "AUPRO",
    "recall": "recall",
    "false_positive_rate": "false positives",
}

PUBLISHED: dict[str, dict[tuple[str, int], tuple[float, float | None]]] = {
    "mvtec": {
        ("WinCLIP+ (CVPR 2023)", 1): (93.1, 95.2),
        ("AnomalyDINO (WACV 2025)", 1): (96.6, None),
        ("VisionAD (2025)", 1): (97.4, None),
    },
    "visa": {("WinCLIP+ (CVPR 2023)", 1): (83.8, 96.4)},
}
"""Image and pixel AUROC in percent, by method and references, as the papers' abstracts have them."""


def spread(mean: float, deviation: float) -> str:
    """Percent with the deviation over the draws; a dash where it is undefined."""
    return DASH if math.isnan(mean) else f"{percent(mean)} ± {percent(deviation)}"


def lines(found: FewShot) -> list[tuple[str, ...]]:
    """Category and COLUMNS; the mean last where there are several."""
    rows = dict(found.table())
    if len(rows) > 1:
        rows["mean"] = found.mean()
    return [(name, *(spread(row[key], row[f"{key}_std"]) for key in COLUMNS)) for name, row in rows.items()]


def title(found: FewShot) -> str:
    """What a draw was, in one line."""
    protocol = found.protocol
    kind = (
        f"{protocol.frames} references"
        if protocol.share is None
        else f"{protocol.frames} unlabelled frames, {protocol.share:.0%} of them anomalous"
    )
    return f"{kind}, {protocol.draws} draws, threshold for {protocol.rate:.1%} false positives; percent"


def published(dataset: str, references: int) -> list[tuple[str, str, str]]:
    """Published rows for a dataset and a number of references: method, image and pixel AUROC."""
    rows = PUBLISHED.get(dataset, {})
    return [
        (name, f"{image:.1f}", DASH if pixel is None else f"{pixel:.1f}")
        for (name, count), (image, pixel) in rows.items()
        if count == references
    ]


def print_few_shot(console: Console, found: FewShot, others: Sequence[tuple[str, str, str]]) -> None:
    """Prints the table, and the published rows below it."""
    table = Table(title=title(found), header_style="bold")
    table.add_column("category", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines(found):
        table.add_row(*line)
    console.print(table)
    if others:
        console.print("published, on all of the dataset: NOT comparable with a part of it", highlight=False)
        beside = Table(header_style="bold")
        for heading in ("method", COLUMNS["image_auroc"], COLUMNS["pixel_auroc"]):
            beside.add_column(heading)
        for row in others:
            beside.add_row(*row)
        console.print(beside)


def few_shot_markdown(found: FewShot, others: Sequence[tuple[str, str, str]]) -> str:
    """The same as plain Markdown."""
    parts = [f"## {title(found)}", "", *markdown_table(("category", *COLUMNS.values()), lines(found))]
    if others:
        headings = ("method", COLUMNS["image_auroc"], COLUMNS["pixel_auroc"])
        parts += ["", "Published, on all of the dataset:", "", *markdown_table(headings, others)]
    return "\n".join(parts) + "\n"
