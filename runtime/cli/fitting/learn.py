"""`kanoclip-learn`: learn a part from good frames, and say whether it works on it."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import check_place, locked, with_tiles
from kanoclip.runtime.cli.fitting.frames import draw_scores, open_frames
from kanoclip.runtime.cli.fitting.learn_options import AUTO, LearnOptions, learn_options
from kanoclip.runtime.cli.fitting.learn_steps import (
    bad_scores,
    find_part,
    look,
    tiles_of,
    zero_shot_detector,
)
from kanoclip.runtime.cli.options import BundleCommand, chosen_settings, reads_of_flags
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.cli.terminal.steps import Steps
from kanoclip.runtime.detect.learning.seen import takes_memory
from kanoclip.runtime.detect.reference.stored.history import memory_of, put, undo, without
from kanoclip.runtime.detect.reference.unlabelled import LEAST_FRAMES
from kanoclip.runtime.errors import MemoryFileError
from kanoclip.runtime.ops.calibration.plot import Histogram
from kanoclip.runtime.ops.calibration.recall import recall_table, table_lines
from kanoclip.runtime.ops.learn import report
from kanoclip.runtime.ops.learn.first_frame import FirstFrame
from kanoclip.runtime.ops.learn.job import Wanted, grow, learn, mask_of, named
from kanoclip.runtime.ops.learn.observe import Observed, Observer
from kanoclip.runtime.ops.learn.promise import promise, thresholds_of
from kanoclip.runtime.ops.learn.sheet import draw_sheet, write_jpeg
from kanoclip.runtime.ops.learn.verdict import RATE, decide
from kanoclip.runtime.service.logs import log_lines
from kanoclip.runtime.system.files.guard import refuse_overwriting

_EPILOG = """
Examples:

\b
  kanoclip-learn --output bottle.kanoclip --source good/
  kanoclip-learn bottle.kanoclip --source good/ --bad bad/ --plot recall.png --sheet references.jpg
  kanoclip-learn bottle.kanoclip --camera 0 --every 25 --unlabelled 32
  kanoclip-learn bottle.kanoclip --source monday/ --add
  kanoclip-learn bottle.kanoclip --undo

Exit codes: 0 it is learned, or shown with --dry-run; 1 it is not; 2 wrong usage.
docs/learn.md says what is promised, and what is not.
"""


@click.command(cls=BundleCommand, epilog=_EPILOG)
@learn_options
def command(options: LearnOptions) -> None:
    """Learn what good frames of a part look like, and set the thresholds by them.

    It goes into BUNDLE, or into a copy of it with --output; without BUNDLE the copy is of the built-in one. Ends with a
    verdict: usable on this part or not, and what to try next.
    """
    options.check()
    opened = Bundle.open(find_bundle(options.bundle_or_builtin, Path.cwd()))
    class_name = options.class_in(opened)
    human = Console(stderr=options.as_json, quiet=options.quiet, highlight=False, soft_wrap=True)
    changes_it = options.output is None and not options.dry_run
    read = reads_of_flags(opened.root, options.config, options.roi, options.source, options.bad)
    if not options.dry_run:
        check_place(opened.root, options.output)
    refuse_overwriting(options.written, read)
    with locked(opened.root) if changes_it else nullcontext():
        opened = Bundle.open(opened.root)  # as it is now that no other writer has it
        if options.undo:
            _undo(opened, class_name, options, human)
        else:
            with native_chatter_silenced(active=not options.debug), log_lines(quiet=options.quiet):
                _learn(opened, class_name, options, human)


def _undo(opened: Bundle, class_name: str, options: LearnOptions, human: Console) -> None:
    """One step back."""
    if options.dry_run:
        memory = memory_of(opened, class_name)
        what = "there is nothing to undo" if memory is None else f"the memory of {memory.created} would go"
        human.print(Text(f"{what}; nothing was changed"))
        return
    left = undo(opened, class_name)
    rest = "no memory is left: scores are zero-shot ones" if left is None else f"the memory of {left.created} is back"
    human.print(Text(f"{class_name}: {rest}, with the thresholds of then"))
    if options.as_json:
        click.echo(json.dumps({"bundle": str(opened.root), "class": class_name, "rows": len(left.rows) if left else 0}))


def _learn(opened: Bundle, class_name: str, options: LearnOptions, human: Console) -> None:
    """Looks at the frames, learns, reports, and writes."""
    complain = Console(stderr=True, highlight=False, soft_wrap=True)
    _, most_rows = takes_memory(opened.manifest)
    roi = chosen_settings(options.config, options.roi).decision(class_name).roi
    old = memory_of(opened, class_name) if options.add else None
    if options.add and old is None:
        raise MemoryFileError(f"{opened.root} has no memory of {class_name} to add to: learn one first, without --add")
    started = time.monotonic()
    frames = open_frames(options)
    first = FirstFrame(frames.good) if options.tiles == AUTO else None
    frames = frames if first is None else replace(frames, good=first)
    try:
        bundle = _cut(opened, class_name, tiles_of(opened, options, first), options)  # refused before an engine is made
        for note in frames.notes:
            human.print(Text(note))
        with Steps(Console(stderr=True, quiet=options.quiet)) as steps, zero_shot_detector(opened, options) as detector:
            engine, root = detector.backend.name, frames.good.root
            observer = Observer(detector, class_name, bundle.manifest.tiles, options.augment)
            observed = look(frames.good, observer, options, steps)
            if options.foreground is not None:
                roi = find_part(observed, options.foreground, options.dry_run, human)
            inside = mask_of(roi, observer.tiling, bundle.manifest.model.image_size)
            steps.show("fitting", None, None)
            if old is not None:
                learned = grow(old, observed, bundle.manifest, inside)
            else:
                wanted = Wanted(
                    options.rows, 0, options.drop_outliers, options.unlabelled is not None, options.references_only
                )
                learned = learn(observed, wanted, bundle.manifest, observer.tiles, inside, _note(options, engine))
            bad = bad_scores(learned.memory, observer, inside, frames, steps)
    finally:
        frames.close()
    every_bad = np.concatenate(list(bad.values())) if bad else np.empty(0)
    found = promise(
        learned.memory,
        options.rate_or_default,
        options.confidence,
        len(observed.skipped),
        in_sequence=frames.in_sequence,
        bad=every_bad if bad else None,
        catch=options.catch,
    )
    good = learned.memory.loo_scores[learned.memory.counted].astype(np.float64)
    table = recall_table(good, bad) if bad else None
    verdict = decide(
        learned.memory,
        found.calibration.image.threshold,
        None if table is None else table.at(RATE),
        held=RATE if table is None else table.held(RATE),
        frame_size=observed.sizes[0],
        model_size=opened.manifest.model.image_size,
    )
    before = opened.manifest.thresholds_of(class_name)
    thresholds = thresholds_of(found, before, roi, engine, learned.memory.created)
    if options.plot is not None:
        threshold = found.calibration.image.threshold
        panel = Histogram("image score, references out of sample", good, every_bad, threshold)
        draw_scores(options.plot, [panel], good, bad)
    if options.sheet is not None:
        write_jpeg(options.sheet, draw_sheet(learned))
    place = None
    if not options.dry_run:
        memory = learned.memory if root is None else named(learned.memory, str(root))
        place = put(bundle, options.output, class_name, memory, thresholds)
    for line in report.sentences(learned, found, before, verdict):
        human.print(Text(line))
    for line in [] if table is None else table_lines(table):
        human.print(Text(line))
    warnings = report.warnings(learned, found) + _too_few(observed, options)
    for line in warnings:
        complain.print(Text(f"warning: {line}", "yellow"))
    human.print(Text("nothing was changed" if place is None else f"written to {place}"))
    if options.as_json:
        result = {
            "bundle": str(opened.root),
            "written_to": None if place is None else str(place),
            "class": class_name,
            "most_rows": most_rows,
            "seconds": round(time.monotonic() - started, 3),
            **report.as_json(learned, found, before, verdict, table),
            "origin": thresholds.origin,
            "warnings": warnings,
        }
        click.echo(json.dumps(result, indent=2, allow_nan=False))


def _cut(opened: Bundle, class_name: str, tiles: TileGrid | None, options: LearnOptions) -> Bundle:
    """The bundle with the tiles; a copy of other tiles begins without the class's memories, which were of those before.

    Raises:
        BundleError: It has memories learned of other tiles.
    """
    if options.output is not None and not options.add and tiles != opened.manifest.tiles:
        opened = without(opened, class_name)
    return replace(opened, manifest=with_tiles(opened, tiles))


def _too_few(observed: Observed, options: LearnOptions) -> list[str]:
    """A line where fewer unlabelled frames came than were asked for."""
    count = len(observed.references)
    if options.unlabelled is None or count >= options.unlabelled:
        return []
    none = "; of so few none can be called odd" if count < LEAST_FRAMES else ""
    return [f"{count} of the {options.unlabelled} unlabelled frames came, or could be read{none}"]


def _note(options: LearnOptions, engine: str) -> str:
    """How a memory was made, for its file."""
    parts = ["unlabelled" if options.unlabelled else "good frames", engine]
    if options.augment:
        parts.append("+".join(options.augment))
    return ", ".join(parts)
