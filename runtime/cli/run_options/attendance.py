"""Who watches over a run: its page, health checks and systemd, and the signal that has settings read again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from kanoclip.runtime.cli.options import grouped
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.health import MAX_FRAME_AGE_S, Health
from kanoclip.runtime.service.http import Answer, health_checks, serve_texts
from kanoclip.runtime.service.logs import LogFormat
from kanoclip.runtime.service.page import PageOptions, open_page
from kanoclip.runtime.service.page.options import TOKEN_VARIABLE
from kanoclip.runtime.service.prometheus import StreamMetrics, require_prometheus
from kanoclip.runtime.service.systemd import Supervision
from kanoclip.runtime.sinks import Sink
from kanoclip.runtime.stream.control import StreamControl
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.stream.progress import Progress
from kanoclip.runtime.system.net import parse_address
from kanoclip.runtime.system.signals import Hangup, Hangups, stop_on_signals

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Watchers:
    """Who the user wants to watch over the run."""

    serve: str | None
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    allow_host: tuple[str, ...]
    health: str | None
    metrics: str | None
    max_frame_age: float
    log_format: str

    @property
    def style(self) -> LogFormat:
        """How log lines are written."""
        return LogFormat(self.log_format)

    def open(self, opened: ExitStack) -> Attendance:
        """Takes the ports, and answers health checks from now on: an engine's build may take minutes.

        Args:
            opened: Closes everything in the end.

        Raises:
            KanoclipError: An address or a token is no good, or cannot be had; the message names the flag.
        """
        if self.serve is None:
            for flag, given in (
                ("--token-file", self.token_file),
                ("--tls-cert", self.tls_cert),
                ("--tls-key", self.tls_key),
                ("--allow-host", self.allow_host),
            ):
                if given:
                    raise click.UsageError(f"{flag} is for the page: give --serve HOST:PORT as well")
        return Attendance(self, opened)


class Attendance:
    """Those who watch over one run; see `Watchers.open`.

    Attributes:
        page: The page's address; None without one.
    """

    def __init__(self, wanted: Watchers, opened: ExitStack) -> None:
        self._page = None
        if wanted.serve is not None:
            options = PageOptions.parse(
                wanted.serve,
                token_file=wanted.token_file,
                token=os.environ.get(TOKEN_VARIABLE),
                tls_cert=wanted.tls_cert,
                tls_key=wanted.tls_key,
                allow_hosts=wanted.allow_host,
            )
            self._page = opened.enter_context(open_page(options))
        self._health = Health(max_frame_age_s=wanted.max_frame_age)
        self._metrics: StreamMetrics | None = None
        texts: dict[tuple[str, int], dict[str, Callable[[], Answer]]] = {}
        if wanted.health is not None:
            texts.setdefault(parse_address(wanted.health), {}).update(health_checks(self._health))
        if wanted.metrics is not None:
            require_prometheus()
            texts.setdefault(parse_address(wanted.metrics), {})["/metrics"] = self._answer_metrics
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
        """What the page is shown by."""
        return [] if self._page is None else [self._page.hub]

    def start(self, control: StreamControl, pipeline: Pipeline, snapshots: Path | None) -> None:
        """The stream is about to run.

        Args:
            control: Of the stream.
            pipeline: The stream.
            snapshots: Folder that anomalies are kept in, for the page; None where there is none.

        Raises:
            SettingsError: The page's server does not start.
        """
        self._control, self._pipeline = control, pipeline
        self._health.attach(control)
        with suppress(SettingsError):  # without the library the page has no /metrics; --metrics has asked for it before
            require_prometheus()
            self._metrics = StreamMetrics(control)
        if self._page is not None:
            metrics = None if self._metrics is None else self._metrics.text
            self._page.start(control, health=self._health, metrics=metrics, snapshots=snapshots)

    def tick(self, progress: Progress) -> None:
        """Called all the time by the main thread while the stream runs."""
        assert self._control is not None and self._pipeline is not None
        self._supervision.tick(progress)
        if self._pipeline.stopping:
            self._supervision.stopping()
            return
        hangup = self._hangups.next()
        if hangup is Hangup.TERMINAL_GONE:
            self._pipeline.stop()
        elif hangup is Hangup.RELOAD:
            with self._supervision.reloading():
                self._control.reload()
            self._pipeline.reopen_sinks()

    def _answer_metrics(self) -> Answer:
        if self._metrics is None:
            return Answer(503, "text/plain; charset=utf-8", b"the engine is being loaded\n")
        return self._metrics.answer()

    def stopping(self) -> None:
        """The stream has ended."""
        self._supervision.stopping()

    def stay(self) -> None:
        """Keeps the page open after the stream's end, until a signal comes."""
        assert self._control is not None
        asked = threading.Event()
        with stop_on_signals(asked.set, asked.is_set):
            while not asked.wait(0.2):
                self._supervision.tick(self._control.progress())
                self._hangups.next()


def watcher_options(command: _Command) -> _Command:
    """Adds who watches over the run; the command gets it as `watchers`."""
    return grouped(
        "watchers",
        Watchers,
        "Page and service",
        click.option(
            "--serve",
            metavar="HOST:PORT",
            help="Show the stream in a browser, e.g. 127.0.0.1:8080. Any address but loopback needs a token.",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"What the page asks for, in a file of one line. Default: environment variable {TOKEN_VARIABLE}.",
        ),
        click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Serve the page by HTTPS."),
        click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's key."),
        click.option(
            "--allow-host",
            multiple=True,
            metavar="NAME",
            help="A further name that the page may be called by, such as a reverse proxy's. May be repeated.",
        ),
        click.option(
            "--health",
            envvar="KANOCLIP_HEALTH",
            metavar="HOST:PORT",
            help="Answer /healthz and /readyz at this address. Default: environment variable KANOCLIP_HEALTH.",
        ),
        click.option(
            "--metrics",
            envvar="KANOCLIP_METRICS",
            metavar="HOST:PORT",
            help="Answer /metrics at this address, for Prometheus. Default: environment variable KANOCLIP_METRICS.",
        ),
        click.option(
            "--max-frame-age",
            type=click.FloatRange(min=0, min_open=True),
            default=MAX_FRAME_AGE_S,
            show_default=True,
            metavar="SECONDS",
            help="Ready while the last frame of each source is at most so old.",
        ),
        click.option(
            "--log-format",
            type=click.Choice([style.value for style in LogFormat]),
            default=LogFormat.TEXT.value,
            envvar="KANOCLIP_LOG_FORMAT",
            help="Notes, warnings and errors as text or as JSON, one a line, on standard error.",
        ),
    )(command)
