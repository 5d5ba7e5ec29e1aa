"""What watches over a run: its page, health checks and systemd, and the signal that has settings read again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Address, Number, OneOf
from kanoclip.runtime.cli.run_options.page import PageSettings
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.health import MAX_FRAME_AGE_S, Health
from kanoclip.runtime.service.http import Answer, health_checks, serve_texts
from kanoclip.runtime.service.logs import LogFormat
from kanoclip.runtime.service.page import open_page
from kanoclip.runtime.service.prometheus import StreamMetrics, require_prometheus
from kanoclip.runtime.service.shifts.counters import ShiftCounters
from kanoclip.runtime.service.systemd import Supervision
from kanoclip.runtime.sinks import Sink
from kanoclip.runtime.stream.control.progress import Progress
from kanoclip.runtime.stream.control.stream_control import StreamControl
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.net import parse_address
from kanoclip.runtime.system.signals import Hangup, Hangups, stop_on_signals


@dataclass(frozen=True)
class ServiceOptions:
    """Health checks, measurements and log lines: `[service]`."""

    health: str | None = option(
        "--health",
        Address(),
        None,
        "Answer /healthz and /readyz at this address. Default: environment variable KANOCLIP_HEALTH.",
        metavar="HOST:PORT",
        envvar="KANOCLIP_HEALTH",
    )
    metrics: str | None = option(
        "--metrics",
        Address(),
        None,
        "Answer /metrics at this address, for Prometheus. Default: environment variable KANOCLIP_METRICS.",
        metavar="HOST:PORT",
        envvar="KANOCLIP_METRICS",
    )
    max_frame_age: float = option(
        "--max-frame-age",
        Number(0, above=True),
        MAX_FRAME_AGE_S,
        "Ready while the last frame of each source is no older.",
        metavar="SECONDS",
        show=True,
    )
    log_format: LogFormat = option(
        "--log-format",
        OneOf(tuple(LogFormat)),
        LogFormat.TEXT,
        "Notes, warnings and errors as text or as JSON, one a line, on standard error.",
        envvar="KANOCLIP_LOG_FORMAT",
    )


@dataclass(frozen=True)
class WatcherOptions:
    """What the user wants to watch over the run."""

    service: ServiceOptions
    page: PageSettings

    def open(self, opened: ExitStack) -> Watchers:
        """Takes the ports, and answers health checks from now on: an engine's build may take minutes.

        Args:
            opened: Closes everything in the end.

        Raises:
            KanoclipError: An address or a token is invalid, or an address is taken; the message names the flag.
        """
        return Watchers(self, opened)


class Watchers:
    """Page, health checks, metrics and systemd's watchdog of one run; see `WatcherOptions.open`.

    Attributes:
        page: The page's address; None without one.
    """

    def __init__(self, wanted: WatcherOptions, opened: ExitStack) -> None:
        options = wanted.page.options()
        self._page = None if options is None else opened.enter_context(open_page(options))
        self._labels = wanted.page.labels
        self._shifts = None if options is None else ShiftCounters(wanted.page.shifts, wanted.page.counters)
        if self._shifts is not None:
            opened.callback(self._shifts.close)
        self._health = Health(max_frame_age_s=wanted.service.max_frame_age)
        self._metrics: StreamMetrics | None = None
        texts: dict[tuple[str, int], dict[str, Callable[[], Answer]]] = {}
        if wanted.service.health is not None:
            texts.setdefault(parse_address(wanted.service.health), {}).update(health_checks(self._health))
        if wanted.service.metrics is not None:
            require_prometheus()
            texts.setdefault(parse_address(wanted.service.metrics), {})["/metrics"] = self._answer_metrics
        for address, answers in texts.items():
            opened.enter_context(serve_texts(answers, address, "health checks" if len(answers) > 1 else "metrics"))
        self._supervision = Supervision.from_environment(self._health)
        self._hangups = opened.enter_context(Hangups())
        self._control: StreamControl | None = None
        self._pipeline: Pipeline | None = None

    @property
    def page(self) -> str | None:
        """The page's address; None without one."""
        return None if self._page is None else self._page.url

    @property
    def sinks(self) -> list[Sink]:
        """The sinks that the page gets its results from."""
        return [] if self._page is None else [self._page.hub]

    def start(self, control: StreamControl, pipeline: Pipeline, snapshots: Path | None) -> None:
        """Prepares for the stream, which is about to run.

        Args:
            control: The stream's control.
            pipeline: The stream.
            snapshots: Folder that anomalies are saved in, for the page; None where there is none.

        Raises:
            SettingsError: The page's server does not start.
        """
        self._control, self._pipeline = control, pipeline
        self._health.attach(control)
        with suppress(
            SettingsError
        ):  # without the library the page has no /metrics; --metrics has checked for it before
            require_prometheus()
            self._metrics = StreamMetrics(control)
        if self._page is not None:
            metrics = None if self._metrics is None else self._metrics.text
            self._page.start(
                control,
                health=self._health,
                metrics=metrics,
                snapshots=snapshots,
                labels=self._labels,
                shifts=self._shifts,
            )

    def tick(self, progress: Progress) -> None:
        """Called all the time by the main thread while the stream runs."""
        assert self._control is not None and self._pipeline is not None
        self._supervision.tick(progress)
        if self._shifts is not None:
            self._shifts.tick(progress)
        if self._pipeline.live.stopping:
            self._supervision.stopping()
            return
        hangup = self._hangups.next()
        if hangup is Hangup.TERMINAL_GONE:
            self._pipeline.stop()
        elif hangup is Hangup.RELOAD:
            with self._supervision.reloading():
                self._control.reload()
            self._pipeline.live.reopen_sinks()

    def _answer_metrics(self) -> Answer:
        if self._metrics is None:
            return Answer(503, "text/plain; charset=utf-8", b"the engine is being loaded\n")
        return self._metrics.answer()

    def stopping(self) -> None:
        """Reports to systemd that the stream has ended, and saves what was counted."""
        self._supervision.stopping()
        if self._shifts is not None and self._control is not None:
            self._shifts.close(self._control.progress())

    def stay(self) -> None:
        """Keeps the page open after the stream's end, until a signal comes."""
        assert self._control is not None
        stopped = threading.Event()
        with stop_on_signals(stopped.set, stopped.is_set):
            while not stopped.wait(0.2):
                self._supervision.tick(self._control.progress())
                self._hangups.next()
