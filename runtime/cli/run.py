"""`kanoclip-run`: score the frames of a camera, video, stream or images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import cv2
from rich.text import Text

from kanoclip.runtime.bundle.bundle import find_bundle
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, Manifest
from kanoclip.runtime.cli.fitting.warm_up import LineWarmUp, WarmUpOptions
from kanoclip.runtime.cli.options import BundleCommand
from kanoclip.runtime.cli.run_options.decisions import DecisionOptions
from kanoclip.runtime.cli.run_options.engine import EngineOptions, RunOptions
from kanoclip.runtime.cli.run_options.fields import flags_of, given_flags
from kanoclip.runtime.cli.run_options.inputs import Inputs, SourceOptions
from kanoclip.runtime.cli.run_options.line_file import GROUPS, LineConfig, read_line
from kanoclip.runtime.cli.run_options.page import PageSettings
from kanoclip.runtime.cli.run_options.printing import printed
from kanoclip.runtime.cli.run_options.sinks.events import MqttOptions, SnapshotOptions, WebhookOptions
from kanoclip.runtime.cli.run_options.sinks.files import ImagesOptions, JsonlOptions, VideoOptions
from kanoclip.runtime.cli.run_options.sinks.outputs import Outputs
from kanoclip.runtime.cli.run_options.watchers import ServiceOptions, WatcherOptions
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.cli.terminal.run_report import exit_code, introduce, report, total
from kanoclip.runtime.cli.terminal.status import StatusLine
from kanoclip.runtime.detect.alarm import EVERY_FRAME
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import SettingsError, StoppedWaitingError
from kanoclip.runtime.service.logs import LogFormat, log_lines
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.control.progress import Progress
from kanoclip.runtime.stream.control.stream_control import StreamControl
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.hardware import workers_for
from kanoclip.runtime.system.memory import Upkeep, give_back_spare_memory, keep_frame_buffers, share_arena
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.system.signals import exit_on_signals

TRIAL_PAYS = 200
"""Images from which on it pays to find the fastest engine at a first start; one image should not wait for it."""
WORKERS_PAY = 40
"""Images from which on it pays to score two at a time: a second stream costs OpenVINO 0.3 s at its first start."""

log = logging.getLogger(__name__)

_EPILOG = """
Examples:

\b
  kanoclip-run --camera 0
  kanoclip-run --camera 'csi://0?width=1280&height=720&fps=60'
  kanoclip-run --source images/ --output annotated/ --jsonl annotated/frames.jsonl
  kanoclip-run --source 'parts/**/*.png' --class screw --threshold 0.6
  kanoclip-run --source clip.mp4 --output annotated.mp4
  kanoclip-run --config line3.toml --alarm 3/5
  kanoclip-run --camera 0 --warm-up 32 --warm-up-save bottle.kanoclip
  kanoclip-run --camera 0 --camera 2 --serve 127.0.0.1:8080 --snapshots anomalies/
  kanoclip-run --source rtsp://user:password@192.168.1.20/stream1 --no-window --jsonl - | jq .score
  kanoclip-run --source 'gst://v4l2src device=/dev/video0 ! image/jpeg,width=1920,height=1080 ! jpegdec'

Exit codes: 0 all fine, also after Ctrl-C or SIGTERM; 1 a failure, or images that were skipped; 2 wrong usage.
"""


@click.command(cls=BundleCommand, epilog=_EPILOG)
@flags_of(EngineOptions, RunOptions)
@flags_of(SourceOptions, section="Sources")
@flags_of(VideoOptions, ImagesOptions, JsonlOptions, section="Images, videos and lines")
@flags_of(SnapshotOptions, MqttOptions, WebhookOptions, section="Events")
@flags_of(DecisionOptions, section="Decisions")
@flags_of(WarmUpOptions, section="Learning")
@flags_of(PageSettings, ServiceOptions, section="Page and service")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Everything that flags can set, or the thresholds only. Flags override it.",
)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print what holds, file and flags together, as a file for --config; run nothing.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error and the libraries' own messages.")
@click.pass_context
def command(ctx: click.Context, /, config: Path | None, print_config: bool, debug: bool, **_: Any) -> int:
    """Score the frames of cameras, videos, streams or images.

    Give --camera or --source, or several of them: they share one engine, and take turns. Or give --config and a file
    that holds them, and everything else.
    """
    line = _line(config, given_flags(ctx, GROUPS))
    if print_config:
        click.echo(printed(line, find_bundle(line.engine.bundle, Path.cwd())), nl=False)
        return os.EX_OK
    return _run(line, debug)


def _line(config: Path | None, given: Mapping[str, Any]) -> LineConfig:
    """File and flags together.

    Raises:
        click.UsageError: The file is invalid, which no restart mends, or the options contradict each other.
    """
    try:
        line = (LineConfig() if config is None else read_line(config)).overridden(given)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    inputs, outputs = Inputs(line.sources), _outputs(line)
    if not line.sources and (named := line.engine.bundle) is not None and _may_be_a_source(named):
        raise click.UsageError(f"{named} is no bundle: to score it, give --source {named}")
    inputs.check()
    outputs.check(line.path)
    line.page.check()
    line.learn.check(line.run.max_frames)
    if line.run.json and outputs.takes_stdout:
        raise click.UsageError("--json and --jsonl - both write to standard output: give --jsonl a file")
    if inputs.reduced_jpeg and (outputs.shows or line.page.serve):
        raise click.UsageError(
            "--reduced-jpeg leaves no full image to draw on: leave --output, --window, --snapshots and --serve out"
        )
    return line


def _may_be_a_source(named: str) -> bool:
    """Whether what stands where a bundle does is rather what was to be scored."""
    path = Path(named)
    return path.exists() and not (path / MANIFEST_NAME).exists()


def _outputs(line: LineConfig) -> Outputs:
    return Outputs(line.sinks, line.run.window, line.run.table)


def _run(line: LineConfig, debug: bool) -> int:
    """Runs a line; returns the exit code."""
    inputs, outputs = Inputs(line.sources), _outputs(line)
    decisions = line.decisions
    outputs.makers(untrained=False)
    decisions.settings(decisions.config)  # invalid ones are refused before anything is loaded
    root = find_bundle(line.engine.bundle, Path.cwd())
    read = line.reads(root)
    outputs.check_apart(read)
    keep_frame_buffers()
    share_arena()
    policy, threads, max_frames = line.run.policy, line.engine.threads, line.run.max_frames
    live = inputs.live or policy is Policy.DROP_OLDEST
    lone_view = live and inputs.alone
    if not lone_view:
        cv2.setNumThreads(1)  # each frame has a thread; further ones of OpenCV's would take the engine's cores
    as_json = line.run.json
    stdout_taken = as_json or outputs.takes_stdout
    quiet = line.run.quiet or (line.service.log_format is LogFormat.JSON and stdout_taken)
    human = Console(stderr=stdout_taken, quiet=quiet, highlight=False, soft_wrap=True)
    with (
        native_chatter_silenced(active=not debug),
        exit_on_signals(),
        log_lines(line.service.log_format, quiet),
        ExitStack() as opened,
    ):
        for note in (*line.notes, *filter(None, [decisions.not_used(root)])):
            log.info("%s", note)
        watchers = WatcherOptions(line.service, line.page).open(opened)
        file = decisions.file(root)
        settings = decisions.settings(file)
        with builds_shown(Console(stderr=True, quiet=quiet)) as shown:
            detector = opened.enter_context(
                Detector.load(
                    root,
                    backend=line.engine.backend,
                    device=line.engine.device,
                    threads=threads,
                    settings=settings,
                    report=shown,
                    workers=workers_for(lone_view or inputs.few(WORKERS_PAY), threads),
                    trial=not inputs.few(TRIAL_PAYS),
                )
            )
        manifest = detector.bundle.manifest
        looked_for = _class(manifest, line.engine.class_name)
        line.learn.check_bundle(detector, looked_for)
        detector.warmup(line.engine.warmup)
        give_back_spare_memory()  # what was needed only while the engine was made
        # A page may be opened at any time, and counts from the start.
        sources = inputs.open(detector, watched=outputs.may_show or line.page.serve is not None)
        with ExitStack() as pending:  # closes what is open when a later piece fails; the pipeline takes over the rest
            for source in sources:
                pending.callback(source.close)
            introduce(detector.bundle, detector.backend.name, settings, looked_for, human)
            rows = outputs.rows(sources, quiet)
            drops = sources[0].live if policy is None else policy is Policy.DROP_OLDEST
            endless = inputs.endless and not all(source.count for source in sources)  # a video by HTTP has an end
            untrained = not manifest.model.trained
            sinks = outputs.open(sources, pending, endless=endless, untrained=untrained, read=read)
            screen = outputs.screen(sources, untrained=untrained)
            flow = PipelineConfig(
                policy=Policy.DROP_OLDEST if drops else Policy.WAIT,
                class_name=looked_for,
                max_frames=max_frames,
                workers=detector.workers,
                batch=min(detector.batch_size, len(sources)) if live else detector.batch_size,
                # A lone view's next frame, begun early, would be older when its verdict is there.
                in_flight=1 if lone_view else detector.in_flight,
                alarm=settings.decision(looked_for).alarm or EVERY_FRAME,
                hold_screen=not endless,
                closed_to_sources=outputs.closed_to_sources
                if screen is None
                else "the window shows those of the start",
            )
            pipeline = Pipeline(
                sources,
                detector,
                [*sinks, *watchers.sinks],
                flow,
                screen=screen,
                observer=rows.add if rows is not None else None,
            )
            control = StreamControl(pipeline.live, detector, looked_for, decisions.saved)
            warm_up = LineWarmUp.of(line.learn, detector, control, looked_for, outputs.snapshots)
            if warm_up is not None:
                pipeline.live.learn_by(warm_up.learner)
            watchers.start(control, pipeline, outputs.snapshots)
            pending.pop_all()
        if watchers.page is not None:
            human.print(Text(f"page: {watchers.page}"))
        try:
            with StatusLine(Console(stderr=True, quiet=quiet), total(sources, max_frames)) as status:
                hurry = _hurry(pipeline, detector)
                pipeline.run(_each(status.update, watchers.tick, Upkeep().tick, hurry))
            if watchers.page is not None and not endless and not pipeline.live.stopping:
                human.print(Text("all is scored; the page stays open until Ctrl-C"))
                watchers.stay()
        except BrokenPipeError:
            pass  # the reader of our JSON lines has seen enough (`| head`): a normal end
        except StoppedWaitingError as error:
            log.warning("%s", error)  # a stop was requested, and this is its effect
        finally:
            watchers.stopping()
            if warm_up is not None:
                warm_up.finish()
            # Also after a failure: it shows how far the run came.
            report(
                pipeline.live.summary(),
                rows,
                human,
                timings=any(source.root is None for source in sources)
                if line.run.timings is None
                else line.run.timings,
                as_json=as_json,
                more={} if warm_up is None else warm_up.as_json(),
            )
        return exit_code(pipeline.live.summary(), endless)


def _class(manifest: Manifest, class_name: str | None) -> str:
    """The class to look for. One that the bundle does not have is refused before any output is opened."""
    if class_name is None:
        return manifest.classes[0]
    if class_name not in manifest.classes:
        raise click.BadParameter(
            f"{class_name!r} is not in this bundle, which knows: {', '.join(manifest.classes)}; export one with "
            "--class",
            param_hint="'--class'",
        )
    return class_name


def _each(*calls: Callable[[Progress], None]) -> Callable[[Progress], None]:
    def call(progress: Progress) -> None:
        for one in calls:
            one(progress)

    return call


def _hurry(pipeline: Pipeline, detector: Detector) -> Callable[[Progress], None]:
    """Stops waiting for a server that is away once the run is to end."""

    def call(progress: Progress) -> None:
        if pipeline.live.stopping:
            detector.stop_waiting()

    return call
