"""What runs, and how: the bundle and its engine, and the run as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Kind, Number, OneOf, Switch
from kanoclip.runtime.engines import BACKENDS, DEVICE, check_backend
from kanoclip.runtime.engines.triton.address import SHAPE
from kanoclip.runtime.errors import BackendError, SettingsError
from kanoclip.runtime.system.queues import Policy

TABLE_LIMIT = 40
"""Up to so many images the table is printed without a flag."""


class _Backend(Kind):
    def check(self, value: Any) -> None:
        try:
            check_backend(value)
        except BackendError as error:
            raise SettingsError(f"{error}.") from None


class _Device(Kind):
    def check(self, value: Any) -> None:
        if not DEVICE.fullmatch(value):
            raise SettingsError(f"{value!r} is not auto, cpu, cuda or cuda:N.")


@dataclass(frozen=True)
class EngineOptions:
    """The bundle and what runs it: `[engine]`."""

    bundle: str | None = option(
        "--bundle",
        Kind(),
        None,
        "Bundle folder (NAME.kanoclip), or builtin. Default: the one in this folder, or the built-in.",
        metavar="PATH",
    )
    class_name: str | None = option(
        "--class", Kind(), None, "What the frames show; one of the bundle's classes.", key="class", metavar="NAME"
    )
    backend: str = option(
        "--backend",
        _Backend(),
        "auto",
        f"Inference engine: {', '.join(BACKENDS)}; or {SHAPE}, a model on a server.",
        metavar="NAME",
        show=True,
    )
    device: str = option(
        "--device", _Device(), "auto", "Where the engine runs.", metavar="auto|cpu|cuda[:N]", show=True
    )
    threads: int | None = option(
        "--threads", Number(1, whole=True), None, "CPU threads of the engine. Default: the engine's choice."
    )
    warmup: int = option("--warmup", Number(0, whole=True), 1, "Inferences before the first frame.", show=True)


@dataclass(frozen=True)
class RunOptions:
    """The run as a whole: `[run]`."""

    policy: Policy | None = option(
        "--policy",
        OneOf(tuple(Policy)),
        None,
        "When inference is slower than the source: lose old frames, or wait. Default: drop-oldest for live sources.",
    )
    max_frames: int | None = option(
        "--max-frames", Number(1, whole=True), None, "Stop after N scored frames.", metavar="N"
    )
    window: bool | None = option(
        "--window/--no-window", Switch(), None, "Show a window. Default: for live sources, given a display."
    )
    table: bool | None = option(
        "--table/--no-table", Switch(), None, f"One row per image. Default: up to {TABLE_LIMIT} images."
    )
    timings: bool | None = option(
        "--timings/--no-timings",
        Switch(),
        None,
        "What each stage of a frame took, at the end. Default: after a camera, video or stream.",
    )
    json: bool = option("--json", Switch(), False, "Print the summary as JSON on standard output.")
    quiet: bool = option("--quiet", Switch(), False, "No status line, table or summary; warnings and errors remain.")
