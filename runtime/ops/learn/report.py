"""What was learned, in sentences and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.alarm import EVERY_FRAME
from kanoclip.runtime.ops.calibration import report as calibrated
from kanoclip.runtime.ops.calibration.recall import RecallTable
from kanoclip.runtime.ops.learn.job import Learned
from kanoclip.runtime.ops.learn.promise import Promise
from kanoclip.runtime.ops.learn.verdict import Verdict

MOST_NAMED = 10
"""Outliers and unreadable files that are named, each in a line."""


def sentences(learned: Learned, promise: Promise, before: Thresholds, verdict: Verdict) -> list[str]:
    """One line each: the memory, what was left out, the thresholds, the verdict and what to try next."""
    memory, count = learned.memory, len(learned.used)
    kind = ("reference" if learned.selection is None else "unlabelled frame") + "s" * (count != 1)
    whole = f", {len(memory.names)} in all" if len(memory.names) != count else ""
    tiles = "" if memory.tiles is None else f", tiles {memory.tiles.rows}x{memory.tiles.columns}"
    alone = ", without the zero-shot map" if memory.tensors().decides_alone else ""
    lines = [f"memory of {len(memory.rows)} rows from {count} {kind}{whole}{tiles}{alone}"]
    if (selection := learned.selection) is not None:
        left = int((~selection.frames).sum())
        cells = selection.cells_left_out
        lines.append(
            f"left out as suspicious: {left} of {len(selection.frames)} frames, and {cells} of "
            f"{selection.cells[selection.frames].size} cells of the others"
        )
        lines += [f"  left out: {name}" for name in names_left_out(learned)[:MOST_NAMED]]
    promised = calibrated.sentences(promise.calibration, before, EVERY_FRAME)
    if promise.highest is not None:
        image = promise.calibration.image.threshold
        scores = memory.loo_scores[memory.counted]
        above = int((scores >= image).sum())
        rate = promise.calibration.bound.rate
        promised[1:3] = [
            f"set by the spread of {len(scores)} references out of sample, {above} of which reach it: about "
            f"{rate:g} of the good frames to come will"
        ]
    lines += promised
    lines.append(f"verdict: {verdict.word}: {verdict.why}")
    lines += [f"  next: {step}" for step in verdict.next_steps]
    return lines


def warnings(learned: Learned, promise: Promise) -> list[str]:
    """What stands against it, each in one line."""
    found = []
    used = set(learned.used.tolist())
    for one in learned.outliers[:MOST_NAMED]:
        what = "used nevertheless; --drop-outliers leaves it out" if one.number in used else "left out"
        found.append(f"{one.name} is unlike the other references ({one.reason}); {what}")
    if (more := len(learned.outliers) - MOST_NAMED) > 0:
        found.append(f"{more} more references are unlike the others")
    found += [f"{bad.source} cannot be read ({bad.reason})" for bad in learned.observed.skipped[:MOST_NAMED]]
    repeats, names = learned.memory.repeats, learned.memory.names
    if repeats:
        found.append(
            f"{len(repeats)} of {len(names)} references show what another one shows, such as {names[repeats[0]]}: they "
            f"count as {learned.memory.different}; use frames of different parts"
        )
    if learned.selection is not None:
        found.append(
            "these frames were chosen for being alike, so good frames to come may exceed the false-alarm rate: look at "
            "--sheet, and calibrate by frames that are known to be good"
        )
    return found + promise.warnings()


def names_left_out(learned: Learned) -> list[str]:
    """Names of the frames that are no references, in their order."""
    used = set(learned.used.tolist())
    return [name for number, name in enumerate(learned.observed.references.names) if number not in used]


def as_json(
    learned: Learned, promise: Promise, before: Thresholds, verdict: Verdict, table: RecallTable | None
) -> dict[str, Any]:
    """The same as JSON values; rates are shares."""
    memory, selection = learned.memory, learned.selection
    return {
        "rows": len(memory.rows),
        "references": len(memory.names),
        "added": len(learned.used),
        "repeats": [memory.names[number] for number in memory.repeats],
        "left_out": names_left_out(learned),
        "cells_left_out": None if selection is None else selection.cells_left_out,
        "outliers": [{"name": one.name, "reason": one.reason} for one in learned.outliers],
        "unreadable": [{"name": bad.source, "reason": bad.reason} for bad in learned.observed.skipped],
        "tiles": None if memory.tiles is None else asdict(memory.tiles),
        "fusion": asdict(memory.fusion),
        "references_only": memory.tensors().decides_alone,
        "requested_rate": promise.requested,
        "highest_threshold": promise.highest,
        **calibrated.as_json(promise.calibration, before, EVERY_FRAME),
        "recall": None if table is None else table.as_json(),
        "verdict": asdict(verdict),
    }
