"""What `kanoclip-run` says of a run, before it and after it, and the exit code."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.status import ImageTable, print_summary, summary_json
from kanoclip.runtime.detect.settings.settings import Settings
from kanoclip.runtime.sources import Source
from kanoclip.runtime.stream.control.progress import RunSummary

log = logging.getLogger(__name__)


def introduce(bundle: Bundle, engine: str, settings: Settings, class_name: str, human: Console) -> None:
    """Prints what is about to run and from where, and warns if its results mean nothing."""
    manifest = bundle.manifest
    height, width = manifest.model.image_size
    cut = "" if manifest.tiles is None else f" in {manifest.tiles.title} tiles"
    model = f"{manifest.model.backbone}, {manifest.precision}, {height}x{width}{cut}"
    references = ", ".join(manifest.references)
    learned = f", with references of {references}" if references else ""
    human.print(Text(f"{manifest.name}: {model}, {engine}{learned}, from {bundle.root}"))
    if settings.origin:
        human.print(Text(f"settings: {settings.origin}"))
    if settings.decision(class_name).threshold is None and not manifest.thresholds_of(class_name).of_the_part:
        human.print(
            Text(
                "thresholds are not your part's: kanoclip-learn --output part.kanoclip --source good/ sets them by "
                "good images of it"
            )
        )
    if not manifest.model.trained:
        log.warning(
            "bundle %s is untrained (weights %s): its maps and verdicts mean nothing",
            manifest.name,
            manifest.model.weights,
        )


def total(sources: Sequence[Source], max_frames: int | None) -> int | None:
    """How many frames there will be, where that is known."""
    counts = [source.count for source in sources if source.count is not None]
    if len(counts) < len(sources):
        return None
    return sum(counts) if max_frames is None else min(sum(counts), max_frames)


def report(
    summary: RunSummary,
    rows: ImageTable | None,
    human: Console,
    *,
    timings: bool,
    as_json: bool,
    more: dict[str, Any],
) -> None:
    """Prints table and summary; `more` is for its JSON."""
    with suppress(OSError):  # the terminal may be gone; what a program reads comes below
        if rows is not None:
            human.print(rows.render())
        print_summary(human, summary, timings=timings)
    if as_json:
        click.echo(json.dumps(summary_json(summary) | more, allow_nan=False))


def exit_code(summary: RunSummary, endless: bool) -> int:
    """1 if images were skipped or one of several sources failed, which is logged; otherwise 0.

    An endless stream that was stopped has done its work, even if it could not read some images.
    """
    failed = [source.error for source in summary.sources if source.error is not None]
    if failed:
        log.error("%d of %d sources failed: %s", len(failed), len(summary.sources), "; ".join(failed))
        return 1
    if summary.skipped and not (endless and summary.interrupted):
        both = summary.frames + summary.skipped
        log.error("%d of %d images could not be read and were skipped", summary.skipped, both)
        return 1
    return os.EX_OK
