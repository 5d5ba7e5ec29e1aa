"""`kanoclip-calibrate`: set a bundle's thresholds by good frames."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import click
import numpy as np
from rich.text import Text

from kanoclip.runtime.bundle.bundle import BUILTIN, Bundle, find_bundle
from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.bundle.manifest import Thresholds
from kanoclip.runtime.bundle.store import check_place, locked, store
from kanoclip.runtime.cli.options import (
    backend_options,
    chosen_settings,
    decision_options,
    known_camera,
    reading_options,
    reads_of_flags,
    share,
)
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.cli.terminal.status import StatusLine
from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.conformal import bound, frames_needed
from kanoclip.runtime.detect.settings.settings import Decision
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.calibration import report
from kanoclip.runtime.ops.calibration.calibrate import Calibration, calibrate
from kanoclip.runtime.ops.calibration.gather import EveryNth, Values, gather
from kanoclip.runtime.ops.calibration.plot import Histogram, draw_histograms, write_png
from kanoclip.runtime.service.logs import log_lines
from kanoclip.runtime.sources import Source, open_camera, open_source
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.system.files.guard import Written, refuse_overwriting
from kanoclip.runtime.system.hardware import workers_for
from kanoclip.runtime.types import RegionOfInterest

_EPILOG = """
Examples:

\b
  kanoclip-calibrate line3.kanoclip --source good/ --false-alarm-rate 0.01
  kanoclip-calibrate line3.kanoclip --source good.mp4 --every 25 --confidence 0.95 --bad bad/ --plot scores.png
  kanoclip-calibrate line3.kanoclip --camera 0 --every 30 --config line3.toml
  kanoclip-calibrate nano.kanoclip --output line3.kanoclip --source good/ --class bottle --roi belt.json --json

Exit codes: 0 the thresholds are set, or shown with --dry-run; 1 they are not; 2 wrong usage.
docs/calibration.md says what is promised, and what is not.
"""


@click.command(epilog=_EPILOG)
@click.argument("bundle", required=False, metavar="[BUNDLE]")
@click.option("--source", metavar="PATH|GLOB|URL", help="Good frames: a folder, images, a video, a stream.")
@click.option("--camera", callback=known_camera, metavar="N|DEVICE|csi://N", help="Good frames from a camera.")
@click.option(
    "--false-alarm-rate",
    "rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    callback=share,
    default=0.001,
    show_default=True,
    help="Share of good frames that may be called anomalous.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, max_open=True),
    callback=share,
    metavar="SHARE",
    help="Keep the rate in this share of calibrations, such as 0.95; it takes more frames. Default: on average.",
)
@click.option("--bad", metavar="PATH|GLOB", help="Frames that should be found: reported, not used.")
@click.option("--class", "class_name", metavar="NAME", help="What the frames show; one of the bundle's classes.")
@decision_options
@click.option(
    "--every", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Take one of N frames."
)
@click.option(
    "--max-frames",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N good frames. Default: all; from a live source as many as the rate takes.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="NAME.kanoclip",
    help="Write a copy of the bundle rather than changing it.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the frames' values.")
@reading_options
@backend_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error and the libraries' own messages.")
def command(
    bundle: str | None,
    source: str | None,
    camera: str | None,
    rate: float,
    confidence: float | None,
    bad: str | None,
    class_name: str | None,
    config: Path | None,
    roi: Path | None,
    min_area: int | None,
    alarm: AlarmRule | None,
    every: int,
    max_frames: int | None,
    output: Path | None,
    dry_run: bool,
    plot: Path | None,
    reading: Reading,
    backend: str,
    device: str,
    threads: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Set a bundle's thresholds by good frames, with no label.

    Of good frames like these, at most the asked share will be called anomalous, and of at most that share the map will
    reach the pixel threshold. Give the region of interest that will be used. Give exactly one of --source and --camera.
    BUNDLE is changed; with --output a copy is written, of the built-in bundle where none is named.
    """
    if (source is None) == (camera is None):
        raise click.UsageError("give exactly one of --source PATH|GLOB|URL and --camera N")
    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(f"--plot {plot}: it is written as .png only")
    if bundle is None and output is None and not dry_run:
        raise click.UsageError(
            "name the bundle whose thresholds are set, which is changed, or with --output NAME.kanoclip a folder for a "
            "copy of the built-in one"
        )
    settings = chosen_settings(config, roi, min_area=min_area, alarm=alarm)
    opened = Bundle.open(find_bundle(BUILTIN if bundle is None else bundle, Path.cwd()))
    whose = _class_of(opened, class_name)
    places = [Written(flag, path) for flag, path in (("--plot", plot), ("--output", output)) if path is not None]
    if not dry_run:
        check_place(opened.root, output)
    refuse_overwriting(places, reads_of_flags(opened.root, config, roi, source, bad))
    human = Console(stderr=as_json, highlight=False, soft_wrap=True)
    complain = Console(stderr=True, highlight=False, soft_wrap=True)
    with native_chatter_silenced(active=not debug), log_lines():
        with ExitStack() as pending:
            frames = EveryNth(_open(camera, source, reading), every)
            pending.callback(frames.close)
            wanted = _wanted(frames, max_frames, rate, confidence)
            with builds_shown(Console(stderr=True)) as build_report:
                detector = Detector.load(
                    opened.root,
                    backend=backend,
                    device=device,
                    threads=threads,
                    # No threshold matters here; at 1 hardly a region is looked for.
                    settings=settings.overridden(Decision(threshold=1.0, pixel_threshold=1.0)),
                    report=build_report,
                    workers=workers_for(frames.live, threads),
                )
            pending.pop_all()  # the pipeline closes it from here on
        with detector:
            engine = detector.backend.name
            good = _infer(frames, detector, class_name, wanted)
            found_bad = None
            if bad is not None:
                found_bad = _infer(open_source(bad, reading=reading), detector, class_name, None)
                if not len(found_bad.scores):
                    raise CalibrationError(f"{bad}: no image in it can be read")
    shown_class = class_name or opened.manifest.classes[0]
    decision = settings.decision(shown_class)
    rule = decision.alarm or EVERY_FRAME
    found = calibrate(good, rate, confidence, rule, found_bad)
    before = opened.manifest.thresholds_of(shown_class)
    base = before if min_area is None else replace(before, min_area=min_area)
    thresholds = _thresholds(found, base, decision.roi, engine)
    place = None if dry_run else _stored(opened, output, whose, thresholds)
    for line in report.sentences(found, before, rule):
        human.print(Text(line))
    warnings = found.warnings(every) + _override_warnings(decision, settings.origin)
    for line in warnings:
        complain.print(Text(f"warning: {line}", "yellow"))
    if plot is not None:
        _draw(plot, found, good, found_bad)
    human.print(Text("nothing was changed" if place is None else f"written to {place}"))
    if as_json:
        result = {
            "bundle": str(opened.root),
            "written_to": None if place is None else str(place),
            "class": shown_class,
            **report.as_json(found, before, rule),
            "every": every,
            "min_area": thresholds.min_area,
            "roi": None if decision.roi is None else decision.roi.name,
            "origin": thresholds.origin,
            "warnings": warnings,
        }
        click.echo(json.dumps(result, indent=2, allow_nan=False))


def _open(camera: str | None, source: str | None, reading: Reading) -> Source:
    if camera is not None:
        return open_camera(camera, reading=reading)
    return open_source(source or "", reading=reading)


def _class_of(bundle: Bundle, class_name: str | None) -> str | None:
    """The class whose thresholds are set; None for a bundle of one, whose thresholds are all's."""
    classes = bundle.manifest.classes
    if class_name is not None and class_name not in classes:
        raise click.BadParameter(
            f"{class_name!r} is not in this bundle, which knows: {', '.join(classes)}", param_hint="'--class'"
        )
    if len(classes) == 1:
        return None
    if class_name is None:
        raise click.UsageError(f"name the frames' class with --class: this bundle knows {', '.join(classes)}")
    return class_name


def _wanted(frames: Source, max_frames: int | None, rate: float, confidence: float | None) -> int | None:
    """How many frames to score; refuses at once where there are too few of them."""
    needed = frames_needed(rate, confidence)
    if max_frames is None and (frames.live or (frames.count is None and frames.root is None)):
        return needed
    # A video's count is an estimate: only images are counted before they are read.
    known = [n for n in (max_frames, frames.count if frames.root is not None else None) if n is not None]
    if known:
        bound(min(known), rate, confidence)
    return max_frames


def _infer(source: Source, detector: Detector, class_name: str | None, most: int | None) -> Values:
    counts = [n for n in (source.count, most) if n is not None]
    with StatusLine(Console(stderr=True), min(counts) if counts else None) as status:
        values = gather(source, detector, class_name, max_frames=most, on_tick=status.update)
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
    return Thresholds(
        image=found.image.threshold,
        pixel=found.pixel.threshold,
        min_area=before.min_area,
        origin=f"conformal: false-alarm rate {bound.rate:g}{sure} by {bound.frames} good frames"
        f"{worth}{inside}, {engine}, {now}",
        roi=None if roi is None else roi.digest(),
    )


def _stored(bundle: Bundle, output: Path | None, class_name: str | None, thresholds: Thresholds) -> Path:
    """Writes the thresholds; what another command has changed in the bundle meanwhile is not lost."""
    if output is not None:
        return store(bundle, output, class_name, thresholds)
    with locked(bundle.root):
        return store(bundle.reread(), None, class_name, thresholds)


def _override_warnings(decision: Decision, origin: str) -> list[str]:
    """Thresholds of the settings file, beside which the calibrated ones never come to bear."""
    names = [name for name in ("threshold", "pixel_threshold") if getattr(decision, name) is not None]
    return [f"{origin} sets {' and '.join(names)}, which overrides the bundle: take it out"] if names else []


def _draw(path: Path, found: Calibration, good: Values, bad: Values | None) -> None:
    none = np.empty(0)
    panels = [
        Histogram("image score", good.scores, none if bad is None else bad.scores, found.image.threshold),
        Histogram("largest map value", good.peaks, none if bad is None else bad.peaks, found.pixel.threshold),
    ]
    write_png(path, draw_histograms(panels))
