"""Results as tables: for the terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.data.layouts.names import CLASS_NAMES
from kanoclip.train.evaluation.paper import PROTOCOL, PaperRow
from kanoclip.train.evaluation.results import METRICS, Results

HEADINGS = ("image AUROC", "image AP", "image F1-max", "pixel AUROC", "pixel AP", "pixel F1-max", "AUPRO")
SHORT = ("I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "AUPRO")
DASH = "-"


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal; a dash where it is undefined."""
    return DASH if value is None or math.isnan(value) else f"{100 * value:.1f}"


def caption(results: Results) -> str:
    """What was measured, in one line; untrained models are called that."""
    model = results.model
    size = "x".join(str(side) for side in model["image_size"])
    if tiles := model.get("tiles"):
        size += f" in {tiles} tiles"
    header = (
        f"{model['name']}: {model['backbone']} ({model['weights']}), {size}, {model['precision']}, {model['backend']}"
    )
    if str(model["weights"]).startswith("seeded"):
        header += "; SEEDED backbone, which knows nothing of images or text"
    elif not results.trained:
        header += "; UNTRAINED head"
    elif model["prompts"] == "handcrafted":
        header += "; training-free, WinCLIP's prompts"
    return header


def rows(results: Results) -> list[tuple[str, ...]]:
    """Category, its metrics in percent; the mean last where there are several."""
    lines = [(name, *(percent(row.metrics[m]) for m in METRICS)) for name, row in results.categories.items()]
    if len(lines) > 1:
        mean = results.mean
        lines.append(("mean", *(percent(mean[m]) for m in METRICS)))
    return lines


def notes(results: Results) -> list[str]:
    """What a reader of the table must know."""
    notes = []
    for name, row in results.categories.items():
        if row.unmasked:
            notes.append(f"{name}: {row.unmasked} anomalous images without a mask are in no pixel metric")
        if not (row.normal and row.anomalous):
            kind = "normal" if not row.normal else "anomalous"
            notes.append(f"{name}: no {kind} image, so that no image metric is defined")
        if row.skipped:
            notes.append(f"{name}: {len(row.skipped)} images could not be read, such as {row.skipped[0]}")
    used: dict[str, list[str]] = {}
    for name, row in results.categories.items():
        used.setdefault(row.class_name, []).append(name)
    notes.append("[class]: " + ", ".join(f"'{words}' for {', '.join(names)}" for words, names in used.items()))
    return notes


def paper_lines(results: Results, paper: Sequence[PaperRow]) -> list[tuple[str, str, str]]:
    """The paper's rows and ours on the same dataset: method, image and pixel AUROC."""
    lines = [(row.method, f"{row.image_auroc:.1f}", percent(_fraction(row.pixel_auroc))) for row in paper]
    mean = results.mean
    return [*lines, ("this run", percent(mean["image_auroc"]), percent(mean["pixel_auroc"]))]


def comparability(results: Results) -> str:
    """Under which protocol the paper's figures were found, and whether this run's images are the same."""
    published = CLASS_NAMES[results.dataset]
    if set(published) == set(results.categories):
        return f"Beside {PROTOCOL}."
    return (
        f"Beside {PROTOCOL}, over all {len(published)} categories of {results.dataset}; this run has other categories: "
        "NOT comparable."
    )


def print_results(console: Console, results: Results, paper: Sequence[PaperRow] | None) -> None:
    """Prints the table, the notes, and the comparison where there is one."""
    title = f"{results.dataset} ({results.root}), percent; I image, P pixel"
    table = Table(title=escape(title), header_style="bold")
    table.add_column("category", no_wrap=True)
    for heading in SHORT:
        table.add_column(heading, justify="right", no_wrap=True)
    lines = rows(results)
    for line in lines:
        table.add_row(*(escape(cell) for cell in line), end_section=len(lines) > 1 and line is lines[-2])
    console.print(table)
    for note in (caption(results), *notes(results)):
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    if paper is not None:
        _print_paper(console, results, paper)


def _print_paper(console: Console, results: Results, paper: Sequence[PaperRow]) -> None:
    if not paper:
        console.print(f"the paper has no figures for {results.dataset}", highlight=False)
        return
    table = Table(title=f"{results.dataset} in the paper", header_style="bold")
    table.add_column("method")
    for heading in (SHORT[0], SHORT[3]):
        table.add_column(heading, justify="right")
    for line in paper_lines(results, paper):
        table.add_row(*line, style="bold" if line[0] == "this run" else None)
    console.print(table)
    console.print(comparability(results), highlight=False, markup=False, soft_wrap=True)


def markdown(results: Results, paper: Sequence[PaperRow] | None) -> str:
    """The same as plain Markdown."""
    parts = [f"## {results.dataset} ({results.root})", "", caption(results), ""]
    parts += markdown_table(("category", *HEADINGS), rows(results))
    parts += ["", *(f"- {note}" for note in notes(results))]
    if paper:
        parts += ["", comparability(results), ""]
        parts += markdown_table(("method", HEADINGS[0], HEADINGS[3]), paper_lines(results, paper))
    return "\n".join(parts) + "\n"


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: first column to the left, the others to the right."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    marks = ["---", *["---:"] * (len(headings) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (headings, marks, *escaped)]


def comma_separated(results: Results) -> str:
    """CSV with fractions; empty where undefined."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("category", *METRICS, "normal", "anomalous"))
    for name, row in results.categories.items():
        writer.writerow((name, *map(_cell, (row.metrics[m] for m in METRICS)), row.normal, row.anomalous))
    writer.writerow(("mean", *map(_cell, (results.mean[m] for m in METRICS)), "", ""))
    return out.getvalue()


def as_json(results: Results, paper: Sequence[PaperRow] | None, versions: Mapping[str, str]) -> str:
    """JSON, with the paper's rows as fractions where they were asked for."""
    record = {**results.as_json(), "versions": dict(versions)}
    if paper is not None:
        record["paper"] = {
            row.method: {"image_auroc": _fraction(row.image_auroc), "pixel_auroc": _fraction(row.pixel_auroc)}
            for row in paper
        }
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Writes a file beside its place and renames it.

    Raises:
        KanoclipError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise KanoclipError(f"cannot write {path}: {error.strerror}: choose another place") from error


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _fraction(value: float | None) -> float | None:
    return None if value is None else round(value / 100, 6)
