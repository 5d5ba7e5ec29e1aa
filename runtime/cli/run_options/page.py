"""The options of a run's page: where it is served, who may see it, and what it keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Address, Kind, PathName, Texts
from kanoclip.runtime.cli.run_options.secrets import Secret, SecretText
from kanoclip.runtime.service.page import PageOptions
from kanoclip.runtime.service.page.options import TOKEN_VARIABLE
from kanoclip.runtime.service.shifts.plan import ShiftPlan


class _Shifts(Kind):
    def of_flag(self, value: Any) -> Any:
        return value if isinstance(value, ShiftPlan) else ShiftPlan.parse(value)

    def to_flag(self, value: Any) -> Any:
        return value.shown

    def to_toml(self, value: Any) -> Any:
        return value.shown


@dataclass(frozen=True)
class PageSettings:
    """The page: `[page]`."""

    serve: str | None = option(
        "--serve",
        Address(),
        None,
        "Show the stream in a browser, e.g. 127.0.0.1:8080. Any address but loopback needs a token.",
        metavar="HOST:PORT",
    )
    token: Secret | None = option(
        "--token-file",
        SecretText(),
        None,
        f"The token that the page requires, in a file of one line. Default: environment variable {TOKEN_VARIABLE}.",
        metavar="FILE",
    )
    tls_cert: Path | None = option(
        "--tls-cert", PathName(beside=True), None, "Serve the page by HTTPS.", metavar="FILE"
    )
    tls_key: Path | None = option("--tls-key", PathName(beside=True), None, "The certificate's key.", metavar="FILE")
    labels: Path | None = option(
        "--labels",
        PathName(),
        None,
        "Folder for frames that are labelled on the page, fine or bad, as kanoclip-eval --dataset mvtec reads them.",
        metavar="FOLDER",
    )
    allow_host: tuple[str, ...] = option(
        "--allow-host",
        Texts(),
        (),
        "A further name that the page may be called by, such as a reverse proxy's. May be repeated.",
        metavar="NAME",
    )

    allow_sources: tuple[str, ...] = option(
        "--allow-sources",
        Texts(),
        (),
        "Network cameras that the page may add while the run goes on, such as rtsp://192.168.1.*; cameras of this "
        "machine and test:// always may. May be repeated.",
        metavar="PATTERN",
    )
    shifts: ShiftPlan = option(
        "--shifts",
        _Shifts(),
        ShiftPlan.parse("6:00,14:00,22:00"),
        "When shifts begin, in local time: the page counts frames, anomalies and alarms by shift and hour.",
        metavar="H:MM,...",
        show=True,
    )
    counters: Path | None = option(
        "--counters",
        PathName(),
        None,
        "Folder to save these counts in, so that they outlive a restart. Default: in memory.",
        metavar="FOLDER",
    )

    def check(self) -> None:
        """Refuses options of the page if there is no page.

        Raises:
            click.UsageError: The message names the flag.
        """
        if self.serve is None:
            for flag, given in (
                ("--token-file", self.token),
                ("--tls-cert", self.tls_cert),
                ("--tls-key", self.tls_key),
                ("--allow-host", self.allow_host),
                ("--labels", self.labels),
                ("--allow-sources", self.allow_sources),
                ("--counters", self.counters),
            ):
                if given:
                    raise click.UsageError(f"{flag} is for the page: give --serve HOST:PORT as well")

    def options(self) -> PageOptions | None:
        """Where the page is served, and who may see it; None without one.

        Raises:
            SettingsError: The options contradict each other, or a secret is missing.
        """
        if self.serve is None:
            return None
        named = None if self.token is None or self.token.file is not None else self.token.read()
        return PageOptions.parse(
            self.serve,
            token_file=None if self.token is None else self.token.file,
            token=os.environ.get(TOKEN_VARIABLE) if named is None else named,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            allow_hosts=self.allow_host,
            allow_sources=self.allow_sources,
        )
