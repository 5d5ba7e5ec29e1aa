"""Half an hour of a live stream with every local output on: is it as fast and as small at the end as at the start?

    python -m kanoclip.benchmarks.studies.streams.soak nano.kanoclip
    python -m kanoclip.benchmarks.studies.streams.soak nano.kanoclip --minutes 30 --output soak.json --plot soak.png

It runs the installed kanoclip-run on the test pattern, with JSON lines that rotate, snapshots, health checks, metrics
and the page with a browser's part played by a client, and looks at the process from outside once a second.
"""

from __future__ import annotations

import itertools
import json
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from rich.progress import Progress

from kanoclip.benchmarks.studies.line_plot import Panel, draw_panels
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.page_client import watching
from kanoclip.benchmarks.studies.streams.process_samples import ProcessSample, sample_process
from kanoclip.benchmarks.studies.streams.trend import grows, trend
from kanoclip.runtime.bundle.bundle import find_bundle
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError

MB_AN_HOUR = 1.0
"""Growth that is let pass."""
EVERY_S = 1.0
LEAST_S = 60.0
"""Shorter, and no trend can be told apart from chance."""
START_S = 120.0
STOP_S = 30.0


@dataclass(frozen=True)
class Moment:
    """What is known once a second.

    Attributes:
        second: Since the first one.
        process: What kanoclip-run uses.
        frames: Scored so far.
        dropped: Frames that it was too slow for.
        shown: Images that the page's client has got.
    """

    second: float
    process: ProcessSample
    frames: int
    dropped: int
    shown: int


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


def assess(
    moments: Sequence[Moment], fps: float, settle_s: float, limit_mb_an_hour: float = MB_AN_HOUR
) -> dict[str, Any]:
    """What the samples show, the warm-up left out.

    Args:
        moments: As `soak` gives them.
        fps: The source's rate.
        settle_s: The warm-up: engines and allocators reach their working size.
        limit_mb_an_hour: Growth that is let pass.

    Returns:
        JSON values: trends with their intervals; `grows`, whether growth above the limit is sure; the least and the
        most threads and open files of the first and of the last sixth.
    """
    late = [moment for moment in moments if moment.second >= settle_s]
    seconds = [moment.second for moment in late]
    processes = [moment.process for moment in late]
    anonymous = [process.anonymous_mb for process in processes]
    rates, costs = _rates(late)
    spans = seconds[1:]
    rate = trend(spans, rates, reduce=np.mean)
    cost = trend(spans, costs, reduce=np.mean)
    frames, dropped = late[-1].frames - late[0].frames, late[-1].dropped - late[0].dropped
    return {
        "seconds": late[-1].second - late[0].second,
        "settle_s": settle_s,
        "frames": frames,
        "dropped": dropped,
        "source_fps": fps,
        "fps": frames / (late[-1].second - late[0].second),
        "fps_trend": asdict(rate),
        "fps_change": _change(rate.per_hour, rate.hours, rate.mean),
        "fps_change_interval": [_change(end, rate.hours, rate.mean) for end in (rate.low, rate.high)],
        "cpu_ms_a_frame": asdict(cost),
        "rss_mb": asdict(trend(seconds, [process.rss_mb for process in processes], reduce=np.min)),
        "anonymous_mb": asdict(trend(seconds, anonymous, reduce=np.min)),
        "grows": grows(seconds, anonymous, limit_mb_an_hour),
        "threads": _ends([process.threads for process in processes]),
        "files": _ends([process.files for process in processes]),
        "shown": late[-1].shown - late[0].shown,
    }


def plot(moments: Sequence[Moment], settle_s: float) -> Any:
    """The samples as an image, uint8 [height, width, 3], BGR."""
    later = moments[1:]
    processes = [moment.process for moment in later]
    rates, _ = _rates(moments)
    smooth = np.convolve(np.pad(rates, 5, mode="edge"), np.ones(11) / 11, "valid")
    panels = (
        Panel("fps, over 11 s", (("", list(smooth)),), 2.0),
        Panel(
            "memory, MB",
            (("resident", [one.rss_mb for one in processes]), ("anonymous", [one.anonymous_mb for one in processes])),
            4.0,
        ),
        Panel(
            "", (("threads", [one.threads for one in processes]), ("open files", [one.files for one in processes])), 8.0
        ),
    )
    return draw_panels([moment.second for moment in later], panels, settle_s)


def _ends(counts: Sequence[int]) -> dict[str, list[int]]:
    """Least and most at the beginning and at the end; a request has a thread and a file for a moment."""
    part = max(len(counts) // 6, 1)
    return {"first": [min(counts[:part]), max(counts[:part])], "last": [min(counts[-part:]), max(counts[-part:])]}


def _rates(moments: Sequence[Moment]) -> tuple[list[float], list[float]]:
    """fps, and milliseconds of processor time a frame, between each moment and the next."""
    rates, costs = [], []
    for one, two in itertools.pairwise(moments):
        frames, passed = two.frames - one.frames, two.second - one.second
        rates.append(frames / passed)
        costs.append((two.process.cpu_s - one.process.cpu_s) * 1e3 / max(frames, 1))
    return rates, costs


def _change(per_hour: float, hours: float, mean: float) -> float:
    """A trend as a share of the mean, from beginning to end."""
    return per_hour * hours / mean if mean else 0.0


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
        moments = soak(folder, minutes * 60, fps, on_moment=lambda moment: bar.update(task, completed=moment.second))
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
