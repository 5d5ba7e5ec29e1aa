"""`kanoclip-calibrate`: set a bundle's thresholds by good frames."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.store import check_place, locked, store
from kanoclip.runtime.cli.fitting.fit_options import FitOptions, fit_options
from kanoclip.runtime.cli.fitting.frames import by_group, draw_scores, open_frames
from kanoclip.runtime.cli.options import BundleCommand, chosen_settings, decision_options, reads_of_flags
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.cli.terminal.status import StatusLine
from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.conformal import best_rate, bound, frames_needed
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.stored.history import memory_of
from kanoclip.runtime.detect.settings.settings import Decision
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.calibration import report
from kanoclip.runtime.ops.calibration.calibrate import Calibration, calibrate, caught
from kanoclip.runtime.ops.calibration.gather import Values, gather
from kanoclip.runtime.ops.calibration.plot import Histogram
from kanoclip.runtime.ops.calibration.recall import recall_table, table_lines
from kanoclip.runtime.service.logs import log_lines
from kanoclip.runtime.sources import Source
from kanoclip.runtime.system.files.guard import refuse_overwriting
from kanoclip.runtime.system.hardware import workers_for
from kanoclip.runtime.types import RegionOfInterest

LEAST_RATE = 0.001
"""The default false-alarm rate, where good frames are enough for it; with fewer of them what they carry."""
_EPILOG = """
Examples:

\b
  kanoclip-calibrate line3.kanoclip --source good/
  kanoclip-calibrate line3.kanoclip --source bottle/test/ --catch 0.9 --plot scores.png
  kanoclip-calibrate line3.kanoclip --source good.mp4 --every 25 --confidence 0.95 --bad bad/
  kanoclip-calibrate line3.kanoclip --camera 0 --every 30 --config line3.toml
  kanoclip-calibrate --output line3.kanoclip --source good/ --class bottle --roi belt.json --json

Exit codes: 0 the thresholds are set, or shown with --dry-run; 1 they are not; 2 wrong usage.
docs/calibration.md says what is promised, and what is not.
"""


@dataclass(frozen=True)
class CalibrateOptions(FitOptions):
    """What the user wants."""

    min_area: int | None
    alarm: AlarmRule | None


@click.command(cls=BundleCommand, epilog=_EPILOG)
@fit_options(
    CalibrateOptions,
    decision_options,
    rate_help=f"{LEAST_RATE:g}, or the least that so few good frames carry.",
)
def command(options: CalibrateOptions) -> None:
    """Set a bundle's thresholds by good frames, with no label.

    Of good frames like these, at most a chosen share will be called anomalous, and of at most that share the map will
    reach the pixel threshold. Give the region of interest that will be used. Give exactly one of --source and --camera.
    BUNDLE is changed; with --output a copy is written, of the built-in bundle where none is named.
    """
    options.check_frames()
    options.check_suffixes()
    options.check_bundle("whose thresholds are set")
    settings = chosen_settings(options.config, options.roi, min_area=options.min_area, alarm=options.alarm)
    opened = Bundle.open(find_bundle(options.bundle_or_builtin, Path.cwd()))
    shown_class = options.class_in(opened)
    if not options.dry_run:
        check_place(opened.root, options.output)
    refuse_overwriting(
        options.written, reads_of_flags(opened.root, options.config, options.roi, options.source, options.bad)
    )
    human = Console(stderr=options.as_json, quiet=options.quiet, highlight=False, soft_wrap=True)
    complain = Console(stderr=True, highlight=False, soft_wrap=True)
    decision = settings.decision(shown_class)
    rule = decision.alarm or EVERY_FRAME
    with native_chatter_silenced(active=not options.debug), log_lines(quiet=options.quiet), ExitStack() as pending:
        frames = open_frames(options)
        pending.callback(frames.close)
        for note in frames.notes:
            human.print(Text(note))
        wanted = _wanted(frames.good, options)
        with builds_shown(Console(stderr=True, quiet=options.quiet)) as build_report:
            detector = Detector.load(
                opened.root,
                backend=options.backend,
                device=options.device,
                threads=options.threads,
                # No threshold matters here; at 1 hardly a region is looked for.
                settings=settings.overridden(Decision(threshold=1.0, pixel_threshold=1.0)),
                report=build_report,
                workers=workers_for(frames.good.live, options.threads),
            )
        with detector:
            engine = detector.backend.name
            good = _infer(frames.good, detector, options, wanted)
            bad = None if frames.bad is None else _infer(frames.bad, detector, options, None)
    if not len(good.scores):
        raise CalibrationError(f"{options.camera or options.source}: no good frame in it can be read")
    if bad is not None and not len(bad.scores):
        raise CalibrationError(f"{options.bad or options.source}: no bad image in it can be read")
    rate = _rate(options, len(good.scores))
    found = calibrate(good, rate, options.confidence, rule, bad, in_sequence=frames.in_sequence, catch=options.catch)
    before = opened.manifest.thresholds_of(shown_class)
    base = before if options.min_area is None else replace(before, min_area=options.min_area)
    thresholds = _thresholds(found, base, decision.roi, engine)
    by_folder = {} if bad is None else by_group(frames.groups, bad.names, bad.scores)
    table = recall_table(good.scores, by_folder) if by_folder else None
    place = None if options.dry_run else _stored(opened, options.output, shown_class, thresholds)
    lines = report.sentences(found, before, rule)
    if frames.good.root is not None:
        lines.append(report.highest(good))
    for line in [*lines, *([] if table is None else table_lines(table))]:
        human.print(Text(line))
    warnings = found.warnings(options.every) + _override_warnings(decision, settings.origin)
    warnings += reference_warnings(memory_of(opened, shown_class), good.scores)
    for line in warnings:
        complain.print(Text(f"warning: {line}", "yellow"))
    if options.plot is not None:
        draw_scores(options.plot, _panels(found, good, bad), good.scores, by_folder)
    human.print(Text("nothing was changed" if place is None else f"written to {place}"))
    if options.as_json:
        result = {
            "bundle": str(opened.root),
            "written_to": None if place is None else str(place),
            "class": shown_class,
            **report.as_json(found, before, rule),
            "recall": None if table is None else table.as_json(),
            "every": options.every,
            "min_area": thresholds.min_area,
            "roi": None if decision.roi is None else decision.roi.name,
            "origin": thresholds.origin,
            "warnings": warnings,
        }
        click.echo(json.dumps(result, indent=2, allow_nan=False))


def _rate(options: CalibrateOptions, frames: int) -> float:
    """The false-alarm rate that was given, or the least from LEAST_RATE that the frames carry."""
    return options.rate or max(LEAST_RATE, best_rate(frames, options.confidence))


def _wanted(frames: Source, options: CalibrateOptions) -> int | None:
    """How many frames to score; refuses at once where there are too few of them."""
    most, confidence = options.max_frames, options.confidence
    if most is None and (frames.live or (frames.count is None and frames.root is None)):
        return frames_needed(options.rate or LEAST_RATE, confidence)
    # A video's count is an estimate: only images are counted before they are read.
    known = [n for n in (most, frames.count if frames.root is not None else None) if n is not None]
    if known and options.rate is not None:
        bound(min(known), options.rate, confidence)
    return most


def _infer(source: Source, detector: Detector, options: CalibrateOptions, most: int | None) -> Values:
    counts = [n for n in (source.count, most) if n is not None]
    with StatusLine(Console(stderr=True, quiet=options.quiet), min(counts) if counts else None) as status:
        values = gather(source, detector, options.class_name, max_frames=most, on_tick=status.update)
    if values.interrupted:
        raise CalibrationError(f"interrupted after {len(values.scores)} frames; nothing was changed")
    return values


def _thresholds(found: Calibration, before: Thresholds, roi: RegionOfInterest | None, engine: str) -> Thresholds:
    """What goes into the manifest; the smallest area stays."""
    bound = found.bound
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    sure = "" if bound.confidence is None else f" with confidence {bound.confidence:g}"
    worth = f" (worth about {found.effective:.0f} independent ones)" if found.dependent else ""
    inside = "" if roi is None else f" inside of {roi.name if is_one_line(roi.name) else repr(roi.name)}"
    how = f"conformal: false-alarm rate {bound.rate:.4g}{sure} by {bound.frames} good frames"
    if found.catch is not None and found.image.caught is not None:
        how = caught(found.catch, found.image.caught, bound)
    return Thresholds(
        image=found.image.threshold,
        pixel=found.pixel.threshold,
        min_area=before.min_area,
        origin=f"{how}{worth}{inside}, {engine}, {now}",
        roi=None if roi is None else roi.digest(),
    )


def _stored(bundle: Bundle, output: Path | None, class_name: str, thresholds: Thresholds) -> Path:
    """Writes the thresholds; what another command has changed in the bundle meanwhile is not lost."""
    whose = None if len(bundle.manifest.classes) == 1 else class_name  # those of a bundle of one class are all's
    if output is not None:
        return store(bundle, output, whose, thresholds)
    with locked(bundle.root):
        return store(bundle.reread(), None, whose, thresholds)


def _override_warnings(decision: Decision, origin: str) -> list[str]:
    """Thresholds of the settings file, beside which the calibrated ones never come to bear."""
    names = [name for name in ("threshold", "pixel_threshold") if getattr(decision, name) is not None]
    return [f"{origin} sets {' and '.join(names)}, which overrides the bundle: take it out"] if names else []


def reference_warnings(memory: ReferenceMemory | None, scores: npt.NDArray[np.float64]) -> list[str]:
    """A line where good frames seem to be the memory's own references, which it has no distance to."""
    if memory is None or not memory.counted.any():
        return []
    least = float(memory.loo_scores[memory.counted].min())
    below = int((scores < least).sum())
    if 2 * below <= len(scores):
        return []
    return [
        f"{below} of {len(scores)} good frames score below every reference out of sample ({least:.3f}), as references "
        "themselves do: then new good frames will be called anomalous. Use other good frames, or kanoclip-learn alone, "
        "which sets the thresholds too"
    ]


def _panels(found: Calibration, good: Values, bad: Values | None) -> list[Histogram]:
    none = np.empty(0)
    return [
        Histogram("image score", good.scores, none if bad is None else bad.scores, found.image.threshold),
        Histogram("largest map value", good.peaks, none if bad is None else bad.peaks, found.pixel.threshold),
    ]
