"""`kanoclip-run`: judge the frames of a camera, video, stream or pictures."""

from __future__ import annotations

import json
import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
from rich.console import Console
from rich.text import Text

from kanoclip.runtime.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.bundle import find_bundle
from kanoclip.runtime.cli.allocator import give_back_spare_memory, keep_frame_buffers
from kanoclip.runtime.cli.building import builds_shown
from kanoclip.runtime.cli.options import backend_options, chosen_settings, decision_options
from kanoclip.runtime.cli.quiet import native_chatter_silenced
from kanoclip.runtime.detector import Detector
from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.mailbox import Policy
from kanoclip.runtime.pipeline import Pipeline, PipelineConfig
from kanoclip.runtime.processor import lanes_for
from kanoclip.runtime.report import RunSummary
from kanoclip.runtime.service.logs import log_lines
from kanoclip.runtime.sinks import ImageFolderSink, JsonLinesSink, ScreenSink, Sink, VideoSink, WindowSink, has_display
from kanoclip.runtime.sinks.jsonl import STDOUT
from kanoclip.runtime.sources import ImageSource, Source, check_camera, open_camera, open_source
from kanoclip.runtime.sources.video import VIDEO_SUFFIXES
from kanoclip.runtime.status import PictureTable, StatusLine, print_summary, summary_json

TABLE_LIMIT = 40
"""Up to so many pictures the table is printed without being asked for."""

_EPILOG = """
Examples:

\b
  kanoclip-run --camera 0
  kanoclip-run --camera 'csi://0?width=1280&height=720&fps=60'
  kanoclip-run --source pictures/ --output annotated/ --jsonl annotated/frames.jsonl
  kanoclip-run --source 'parts/**/*.png' --class screw --threshold 0.6
  kanoclip-run --source clip.mp4 --output annotated.mp4
  kanoclip-run --camera 0 --config line3.toml --roi belt.json --alarm 3/5
  kanoclip-run --source rtsp://user:password@192.168.1.20/stream1 --no-window --jsonl - | jq .score
  kanoclip-run --source 'gst://v4l2src device=/dev/video0 ! image/jpeg,width=1920,height=1080 ! jpegdec'

Exit codes: 0 all fine, also after Ctrl-C or SIGTERM; 1 a failure, or pictures that were skipped; 2 wrong usage.
"""


def _not_nan(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuses NaN, which click's own range lets through."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("NaN is not in the range 0<=x<=1.", ctx=ctx, param=param)
    return value


def _known_camera(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuses what is no camera before anything is loaded."""
    if value is not None:
        try:
            check_camera(value)
        except SourceError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None
    return value


_UNIT = click.FloatRange(0.0, 1.0)


@dataclass(frozen=True)
class _Outputs:
    """What the user wants to see and keep."""

    output: Path | None
    jsonl: str | None
    window: bool | None
    table: bool | None


@click.command(epilog=_EPILOG)
@click.option(
    "--bundle", metavar="PATH", help="Bundle folder (NAME.kanoclip). Default: one in this folder, or the built-in."
)
@click.option(
    "--camera",
    callback=_known_camera,
    metavar="N|DEVICE|csi://N",
    help="Camera index (on Linux N of /dev/videoN), device file, or CSI camera of a Jetson.",
)
@click.option(
    "--source",
    metavar="PATH|GLOB|URL",
    help="Picture, video, folder, glob pattern, rtsp:// or http:// URL, or gst:// and a GStreamer pipeline.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Folder for annotated pictures, or one .mp4. Existing files are overwritten.",
)
@click.option("--jsonl", metavar="PATH|-", help="File for JSON lines, overwritten; - is standard output.")
@click.option("--window/--no-window", default=None, help="Show a window. Default: for live sources, given a display.")
@click.option("--class", "class_name", metavar="NAME", help="What the frames show; one of the bundle's classes.")
@click.option(
    "--threshold", type=_UNIT, callback=_not_nan, help="Score from which a frame is anomalous. Default: the bundle's."
)
@click.option(
    "--pixel-threshold",
    type=_UNIT,
    callback=_not_nan,
    help="Map value from which a pixel counts. Default: the bundle's.",
)
@decision_options
@backend_options
@click.option(
    "--policy",
    type=click.Choice([policy.value for policy in Policy]),
    help="When inference is slower than the source: lose old frames, or wait. Default: drop-oldest for live sources.",
)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=1, show_default=True, help="Inferences before the first frame."
)
@click.option(
    "--reduced-jpeg",
    is_flag=True,
    help="Decode large JPEGs at a smaller scale: faster, and scores differ a little. Not with --output or --window.",
)
@click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Stop after N judged frames.")
@click.option("--table/--no-table", default=None, help=f"One row per picture. Default: up to {TABLE_LIMIT} pictures.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
@click.option("--quiet", is_flag=True, help="No status line, table or summary; warnings and errors remain.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error and the libraries' own messages.")
def command(
    bundle: str | None,
    camera: str | None,
    source: str | None,
    output: Path | None,
    jsonl: str | None,
    window: bool | None,
    class_name: str | None,
    threshold: float | None,
    pixel_threshold: float | None,
    config: Path | None,
    roi: Path | None,
    min_area: int | None,
    alarm: AlarmRule | None,
    backend: str,
    device: str,
    threads: int | None,
    policy: str | None,
    warmup: int,
    reduced_jpeg: bool,
    max_frames: int | None,
    table: bool | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Judge the frames of a camera, video, stream or pictures.

    Give exactly one of --camera and --source.
    """
    if (camera is None) == (source is None):
        raise click.UsageError("give exactly one of --camera N and --source PATH|GLOB|URL")
    if as_json and jsonl == STDOUT:
        raise click.UsageError("--json and --jsonl - both want standard output: give --jsonl a file")
    if output is not None and output.suffix.lower() in VIDEO_SUFFIXES - {".mp4"}:
        raise click.UsageError(f"--output {output}: videos are written as .mp4 only")
    if reduced_jpeg and (output is not None or window):
        raise click.UsageError("--reduced-jpeg leaves no full picture to draw on: leave --output and --window out")

    settings = chosen_settings(
        config,
        roi,
        threshold=threshold,
        pixel_threshold=pixel_threshold,
        min_area=min_area,
        alarm=alarm,
    )
    keep_frame_buffers()
    live = camera is not None or "://" in (source or "") or policy == Policy.DROP_OLDEST.value
    if not live:
        cv2.setNumThreads(1)  # each frame has a thread; those that OpenCV would add take the cores from the engine's
    human = Console(stderr=as_json or jsonl == STDOUT, quiet=quiet, highlight=False, soft_wrap=True)
    complain = Console(stderr=True, highlight=False, soft_wrap=True)
    with native_chatter_silenced(active=not debug), log_lines(quiet=quiet), ExitStack() as opened:
        with builds_shown(Console(stderr=True, quiet=quiet)) as report:
            detector = opened.enter_context(
                Detector.load(
                    find_bundle(bundle, Path.cwd()),
                    backend=backend,
                    device=device,
                    threads=threads,
                    settings=settings,
                    report=report,
                    lanes=lanes_for(live, threads),
                )
            )
        _check_class(detector, class_name)
        detector.warmup(warmup)
        give_back_spare_memory()  # what making the engine took for a while
        frames = open_camera(camera) if camera is not None else open_source(source or "")
        with ExitStack() as pending:  # closes what is open when a later piece fails; the pipeline takes over the rest
            pending.callback(frames.close)
            if reduced_jpeg:
                _reduce(frames, detector)
            _introduce(detector, human, complain)
            wanted = _Outputs(output, jsonl, window, table)
            rows = _table(frames, wanted, quiet)
            sinks, screen = _open_sinks(frames, wanted, pending, untrained=not detector.bundle.manifest.model.trained)
            flow = PipelineConfig(
                policy=Policy(policy) if policy else (Policy.DROP_OLDEST if frames.live else Policy.WAIT),
                class_name=class_name,
                max_frames=max_frames,
                lanes=detector.lanes,
                batch=1 if live else detector.batch_size,
                alarm=settings.decision(class_name or detector.bundle.manifest.classes[0]).alarm or EVERY_FRAME,
                hold_screen=not frames.live,
            )
            observer = rows.add if rows is not None else None
            pipeline = Pipeline(frames, detector, sinks, flow, screen=screen, observer=observer)
            pending.pop_all()
        total = frames.count if max_frames is None or frames.count is None else min(frames.count, max_frames)
        try:
            with StatusLine(Console(stderr=True, quiet=quiet), total) as status:
                pipeline.run(status.update)
        except BrokenPipeError:
            pass  # whoever read our JSON lines has seen enough (`| head`): an end like any other
        finally:
            # Also after a failure: it tells how far the run came.
            _report(pipeline.summary(), rows, human, as_json)
        return _exit_code(pipeline.summary(), complain)


def _check_class(detector: Detector, class_name: str | None) -> None:
    """Refuses a class that the bundle was not made for, before any output is opened."""
    classes = detector.bundle.manifest.classes
    if class_name is not None and class_name not in classes:
        raise click.BadParameter(
            f"{class_name!r} is not in this bundle, which knows: {', '.join(classes)}; export one with --class",
            param_hint="'--class'",
        )


def _reduce(source: Source, detector: Detector) -> None:
    """Has a source's JPEGs decoded at a smaller scale."""
    if not isinstance(source, ImageSource):
        raise click.UsageError("--reduced-jpeg is for pictures: it does not go with a camera, video or stream")
    source.reduced_for = detector.frame_size


def _introduce(detector: Detector, human: Console, complain: Console) -> None:
    """Says what is about to run, and warns when its answers mean nothing."""
    manifest = detector.bundle.manifest
    height, width = manifest.model.image_size
    model = f"{manifest.model.backbone}, {manifest.precision}, {height}x{width}"
    human.print(Text(f"{manifest.name}: {model}, {detector.backend.name}"))
    if not manifest.model.trained:
        complain.print(
            Text(
                f"warning: bundle {manifest.name} is untrained (weights {manifest.model.weights}): "
                "its maps and verdicts mean nothing",
                "yellow",
            )
        )


def _table(source: Source, wanted: _Outputs, quiet: bool) -> PictureTable | None:
    """The table of pictures, if there is to be one."""
    if wanted.table and source.root is None:
        raise click.UsageError("--table lists pictures: it does not go with a camera, video or stream")
    modest = source.root is not None and source.count is not None and source.count <= TABLE_LIMIT
    show = modest if wanted.table is None else wanted.table
    return PictureTable(source.root) if show and not quiet else None


def _open_sinks(
    source: Source, wanted: _Outputs, pending: ExitStack, *, untrained: bool
) -> tuple[list[Sink], ScreenSink | None]:
    """Opens the outputs that the user asked for; `pending` closes them if a later one fails."""
    sinks: list[Sink] = []
    if wanted.output is not None:
        if wanted.output.suffix.lower() == ".mp4":
            sinks.append(VideoSink(wanted.output, source.fps, live=source.live, untrained=untrained))
        else:
            sinks.append(ImageFolderSink(wanted.output, source.root, untrained=untrained))
        pending.callback(sinks[-1].close)
    if wanted.jsonl is not None:
        sinks.append(JsonLinesSink(wanted.jsonl))
        pending.callback(sinks[-1].close)
    screen: ScreenSink | None = None
    if wanted.window or (wanted.window is None and source.live and has_display()):
        screen = WindowSink(f"kanoclip {source.name}", untrained=untrained)
    return sinks, screen


def _report(summary: RunSummary, rows: PictureTable | None, human: Console, as_json: bool) -> None:
    """Prints table and summary."""
    if rows is not None:
        human.print(rows.render())
    print_summary(human, summary)
    if as_json:
        click.echo(json.dumps(summary_json(summary), allow_nan=False))


def _exit_code(summary: RunSummary, complain: Console) -> int:
    """1 when pictures were skipped, which is said; otherwise 0."""
    if not summary.skipped:
        return os.EX_OK
    total = summary.frames + summary.skipped
    complain.print(Text(f"error: {summary.skipped} of {total} pictures could not be read and were skipped"))
    return 1
