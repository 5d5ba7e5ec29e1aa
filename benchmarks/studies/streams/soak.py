"""Half an hour of a live stream with every local output on: is it as fast and as small at the end as at the start?

    python -m kanoclip.benchmarks.studies.streams.soak nano.kanoclip
    python -m kanoclip.benchmarks.studies.streams.soak nano.kanoclip --minutes 30 --output soak.json --plot soak.png

It runs the installed kanoclip-run on the test pattern, with JSON lines that rotate, snapshots, health checks, metrics
and the page with a browser's part played by a client, and looks at the process from outside once a second.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import click
import cv2
from rich.progress import Progress

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.page_client import watching
from kanoclip.benchmarks.studies.streams.process_samples import children_of, sample_process
from kanoclip.benchmarks.studies.streams.soak_figures import MB_AN_HOUR, Moment, assess, plot
from kanoclip.runtime.bundle.bundle import find_bundle
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError

EVERY_S = 1.0
LEAST_S = 60.0
"""Shorter, and no trend can be told apart from chance."""
START_S = 120.0
STOP_S = 30.0


def soak(
    bundle: Path,
    seconds: float,
    fps: float,
    *,
    size: str = "width=640&height=480",
    watched: bool = True,
    program: Sequence[str] = (str(Path(sys.executable).with_name("kanoclip-run")),),
    arguments: Sequence[str] = (),
    on_moment: Callable[[Moment], None] = lambda moment: None,
) -> list[Moment]:
    """Runs a stream and watches it.

    Args:
        bundle: What scores.
        seconds: From the first scored frame on.
        fps: The test pattern's rate.
        size: Its size.
        watched: Somebody looks at the page all the time.
        program: What to run in kanoclip-run's place.
        arguments: Further ones.
        on_moment: Called with each sample.

    Raises:
        KanoclipError: It did not start, ended early, or did not end in peace.
    """
    health, page = _free_port(), _free_port()
    with tempfile.TemporaryDirectory(prefix="kanoclip-soak-") as scratch, tempfile.TemporaryFile("w+") as log:
        command = [*program, "--bundle", str(bundle.resolve()), "--source", f"test://?{size}&fps={fps:g}&defect=0.3"]
        command += ["--no-window", "--quiet", "--health", f"127.0.0.1:{health}", "--metrics", f"127.0.0.1:{health}"]
        command += ["--serve", f"127.0.0.1:{page}", "--jsonl", f"{scratch}/frames.jsonl", "--jsonl-max-bytes", "1M"]
        command += ["--snapshots", f"{scratch}/snapshots", "--snapshots-max-count", "50", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=scratch)
        try:
            with _stopped(process, log):
                _until_ready(process, health)
                with watching(page) if watched else nullcontext([0]) as shown:
                    moments = _watch(process, health, shown, seconds, on_moment)
        finally:
            process.kill()
            process.wait()
        files = [path for path in Path(scratch).rglob("*") if path.is_file()]
        if not any(path.suffix == ".jpg" for path in files) or not (Path(scratch) / "frames.jsonl").stat().st_size:
            raise KanoclipError("the outputs are empty: this soak would have shown nothing")
    return moments


def _watch(
    process: subprocess.Popen[Any],
    health: int,
    shown: list[int],
    seconds: float,
    on_moment: Callable[[Moment], None],
) -> list[Moment]:
    moments: list[Moment] = []
    started = time.monotonic()
    while (now := time.monotonic() - started) < seconds:
        if process.poll() is not None:
            raise KanoclipError(f"it ended by itself after {now:.0f} s")
        reported = _request(health, "readyz")
        _scrape(health)
        now = time.monotonic() - started
        if reported is not None and "frames" in reported:
            moments.append(Moment(now, sample_process(process.pid), reported["frames"], reported["dropped"], shown[0]))
            on_moment(moments[-1])
        time.sleep(max(EVERY_S - (time.monotonic() - started) % EVERY_S, 0.01))
    return moments


def _until_ready(process: subprocess.Popen[Any], health: int) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        reported = _request(health, "readyz")
        if reported is not None and reported["status"] == "ready":
            return
        time.sleep(0.1)
    raise KanoclipError("it did not become ready" if process.poll() is None else "it did not start")


def _request(port: int, check: str) -> dict[str, Any] | None:
    """A health check's answer; None where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{check}", timeout=10) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return None
    found: dict[str, Any] = json.loads(body)
    return found


@contextmanager
def _stopped(process: subprocess.Popen[Any], log: Any) -> Iterator[None]:
    """Ends it as systemd does, and wants exit code 0; adds its log to an error."""
    try:
        yield
        process.terminate()
        code = process.wait(STOP_S)
        if code != 0:
            raise KanoclipError(f"exit code {code} after SIGTERM")
    except (KanoclipError, subprocess.TimeoutExpired) as error:
        log.seek(0)
        raise KanoclipError(f"kanoclip-run: {error}: {log.read()[-2000:].strip() or 'its log is empty'}") from None


def _end_children() -> None:
    """Ends what a signal has left behind: one that comes while a process is being started loses its handle."""
    for left in children_of(os.getpid()):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(left, signal.SIGKILL)
            os.waitpid(left, 0)


def _scrape(port: int) -> None:
    """Asks for the metrics as Prometheus does."""
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        if b"kanoclip" not in answer.read():
            raise KanoclipError("there are no metrics")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@click.command()
@click.argument("bundle", required=False)
@click.option("--minutes", default=30.0, show_default=True, help="How long, from the first frame on.")
@click.option("--settle", default=5.0, show_default=True, help="Minutes at the beginning that no figure is of.")
@click.option("--fps", default=10.0, show_default=True, help="The test pattern's rate.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
@click.option("--plot", "chart", type=click.Path(path_type=Path), help="Draw the curves as PNG.")
def main(
    bundle: str | None, minutes: float, settle: float, fps: float, output: Path | None, chart: Path | None
) -> None:
    """Watch kanoclip-run for long. Exit code 1: it grows, or slows down."""
    if (minutes - settle) * 60 < LEAST_S:
        raise click.UsageError(f"--minutes {minutes:g} must be longer than --settle {settle:g} by {LEAST_S:g} s.")
    folder = find_bundle(bundle, Path.cwd())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it watches shall not stay when it is ended
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("soak", total=minutes * 60)
        try:
            moments = soak(
                folder, minutes * 60, fps, on_moment=lambda moment: bar.update(task, completed=moment.second)
            )
        finally:
            _end_children()
    result = {"bundle": folder.name, **assess(moments, fps, settle * 60)}
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)
    if chart is not None:
        chart.write_bytes(cv2.imencode(".png", plot(moments, settle * 60))[1].tobytes())
    sinks = result["fps_change_interval"][1] < -0.02
    sys.exit(int(result["grows"] or result["rss_mb"]["per_hour"] > MB_AN_HOUR or sinks))


if __name__ == "__main__":
    main()
