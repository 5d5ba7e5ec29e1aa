"""What a person sees of a run: the live line, the closing summary and the table of images."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import printable
from kanoclip.runtime.sinks.draw.digits import apart
from kanoclip.runtime.stream.control.progress import Progress, RunSummary
from kanoclip.runtime.types import BadFrame, Result

REFRESH_S = 0.1


class StatusLine:
    """The live line on a terminal, with a bar and the time left when the source's length is known.

    It writes nothing when the console is no terminal. Use as a context manager; the line goes away at the end.

    Args:
        console: Where to write; standard error, so that standard output stays clean.
        total: Frames in all, if known.
    """

    def __init__(self, console: Console, total: int | None) -> None:
        figures = TextColumn("{task.fields[line]}", markup=False)
        columns: list[ProgressColumn] = [figures]
        if total is not None:
            columns = [BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), figures]
        # No thread of rich's own: the pipeline's main loop ticks anyway.
        self._bar = RichProgress(
            *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("run", total=total, line="starting")
        self._next = 0.0

    def __enter__(self) -> StatusLine:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Shows the state, at most every `REFRESH_S` seconds."""
        now = self._bar.get_time()
        if now < self._next:
            return
        self._next = now + REFRESH_S
        done = progress.frames + progress.skipped + progress.dropped
        try:
            self._bar.update(self._task, completed=done, line=status_text(progress), refresh=True)
        except OSError:  # the terminal has gone: no reason to end a run, and nobody to tell
            self._next = math.inf


def status_text(progress: Progress) -> str:
    """One line: rate, latency from capture to verdict, drops, last score."""
    parts = ["paused"] if progress.paused else []
    parts += [
        f"{progress.fps:.1f} fps",
        f"latency p50 {progress.latency_p50:.0f} p95 {progress.latency_p95:.0f} ms",
        f"dropped {progress.dropped}",
    ]
    parts += [f"{name} dropped {count}" for name, count in progress.sink_dropped.items()]
    if progress.skipped:
        parts.append(f"skipped {progress.skipped}")
    parts.append(f"score {_last(progress)}")
    parts.append(f"anomalous {progress.anomalous}/{progress.frames}")
    parts += [f"{source.name} away" for source in progress.sources if source.away is not None]
    return "  ".join(parts)


def _last(progress: Progress) -> str:
    if progress.last_score is None or progress.last_threshold is None:
        return "-"
    return apart(progress.last_score, progress.last_threshold, 3)[0]


class ImageTable:
    """One row per image: file, score, verdict, regions. For sources of known, modest length.

    Args:
        root: Folder that the names are shown relative to.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._rows: list[tuple[str, Text, Text, Text]] = []

    def add(self, result: Result) -> None:
        """Takes a result; the pipeline's observer."""
        if isinstance(result, BadFrame):
            self._rows.append((self._shown(result.source), Text("-"), Text("skipped", "yellow"), Text(result.reason)))
            return
        frame, detection = result
        verdict = Text("anomalous", "bold red") if detection.is_anomalous else Text("normal", "green")
        score = Text(apart(detection.score, detection.threshold, 4)[0])
        self._rows.append((self._shown(frame.source), score, verdict, Text(str(len(detection.regions)))))

    def render(self) -> Table:
        """The table as rich draws it."""
        table = Table("file", "score", "verdict", "regions")
        table.columns[1].justify = "right"
        table.columns[0].overflow = "fold"
        for name, *cells in self._rows:
            table.add_row(Text(printable(name)), *cells)
        return table

    def _shown(self, source: str) -> str:
        path = Path(source)
        if self._root is None or not path.is_relative_to(self._root):
            return source
        return str(path.relative_to(self._root))


def print_summary(console: Console, summary: RunSummary, *, timings: bool) -> None:
    """Prints what a run did, and if wanted what each stage cost."""
    head = f"{summary.frames} frames in {summary.wall_s:.1f} s ({summary.fps:.1f} fps): {summary.anomalous} anomalous"
    head += f", {summary.skipped} skipped, {summary.dropped} dropped"
    if summary.interrupted:
        head += "; stopped early"
    console.print(Text(head, "bold"))
    for name, count in summary.sink_dropped.items():
        console.print(Text(f"{name}: {count} results dropped, for which it was too slow or did not work", "yellow"))
    if len(summary.sources) > 1:
        console.print(_sources_table(summary))
    if not summary.frames or not timings:
        return
    table = Table("stage", "mean ms", "p50 ms", "p95 ms", "p99 ms", "processor ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in summary.stages:
        if stage.count:
            cpu = "-" if stage.cpu is None else f"{stage.cpu:.2f}"
            times = (f"{value:.2f}" for value in (stage.mean, stage.p50, stage.p95, stage.p99))
            table.add_row(stage.name, *times, cpu)
    console.print(table)
    console.print(
        Text(
            f"outside inference: {summary.outside_inference_ms:.2f} ms a frame, "
            f"{summary.outside_inference_cpu_ms:.2f} ms of processor time"
        )
    )


def _sources_table(summary: RunSummary) -> Table:
    """Counts by source."""
    table = Table("source", "frames", "anomalous", "skipped", "dropped", "ended")
    table.columns[0].overflow = "fold"
    for column in table.columns[1:5]:
        column.justify = "right"
    for source in summary.sources:
        counts = (source.frames, source.anomalous, source.skipped, source.dropped)
        ended = Text("-") if source.error is None else Text(source.error, "red")
        table.add_row(Text(printable(source.name)), *map(str, counts), ended)
    return table


def summary_json(summary: RunSummary) -> dict[str, Any]:
    """The summary as JSON values.

    They are the fields of `RunSummary`, `fps`, `outside_inference_ms`, `outside_inference_cpu_ms`, and stages by name,
    which hold `count` and, in milliseconds, `mean`, `p50`, `p95`, `p99` and `cpu`.
    """
    values = asdict(summary)
    values["stages"] = {stage["name"]: {k: v for k, v in stage.items() if k != "name"} for stage in values["stages"]}
    values["fps"] = summary.fps
    values["outside_inference_ms"] = summary.outside_inference_ms
    values["outside_inference_cpu_ms"] = summary.outside_inference_cpu_ms
    return values
