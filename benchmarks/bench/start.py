"""Start-up and memory of a runner, in a process of its own: from the command to the first verdict.

An engine is started as its users start it, by kanoclip-run. torch has no such command: this module is it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.runners.runners import Runner, open_backend
from kanoclip.benchmarks.bench.turns import Tick
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import KanoclipError, one_line

IMAGES = 4
"""Scored in one start: the first for the time, all for the memory."""
_INTERVAL_S = 0.02
_MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


def measure_start(
    bundle: Bundle,
    runners: Sequence[Runner],
    images: Sequence[Path],
    repeat: int,
    threads: int | None,
    journal: Journal,
    tick: Tick,
) -> dict[str, dict[str, float | None]]:
    """Starts each runner, in turns.

    Args:
        bundle: What runs.
        runners: By what.
        images: What to score.
        repeat: Starts of each that count; one before them fills the caches that engines keep.
        threads: CPU threads, None for all cores.
        journal: Keeps each start.
        tick: Called after each.

    Returns:
        Of each runner: `first_verdict_s`, the median; `peak_memory_mb`, the largest resident memory, None where there
        is no /proc; and `device_memory_mb`, how much more of the GPUs' memory was in use meanwhile, None where no
        driver tells.
    """
    found: dict[str, list[dict[str, float | None]]] = {runner.name: [] for runner in runners}
    for number in range(repeat + 1):
        for runner in runners:
            command = _command(bundle, runner, images, threads)
            reported = journal.once(f"start/{number}/{runner.name}", lambda: _start(command))  # noqa: B023 (called at once)
            if number > 0:
                found[runner.name].append(reported)
            tick("start")
    return {name: _figures(starts) for name, starts in found.items()}


def _figures(starts: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    resident = [start["peak_memory_mb"] for start in starts if start["peak_memory_mb"] is not None]
    device = [start["device_memory_mb"] for start in starts if start["device_memory_mb"] is not None]
    return {
        "first_verdict_s": sorted(start["first_verdict_s"] for start in starts)[len(starts) // 2],
        "peak_memory_mb": max(resident) if resident else None,
        "device_memory_mb": max(device) if device else None,
    }


def _command(bundle: Bundle, runner: Runner, images: Sequence[Path], threads: int | None) -> list[str]:
    more = [] if threads is None else ["--threads", str(threads)]
    if runner.is_torch:
        place = [str(bundle.root), runner.engine, runner.device, str(threads or 0)]
        return [sys.executable, "-m", __name__, *place, *(str(image) for image in images)]
    folder = str(images[0].parent)
    command = [
        sys.executable,
        "-m",
        "kanoclip.runtime.cli.main",
        "run",
        "--bundle",
        str(bundle.root),
        "--source",
        folder,
    ]
    command += ["--backend", runner.engine, *more, "--max-frames", str(len(images)), "--jsonl", "-", "--quiet"]
    # OpenVINO knows no --device cuda, and an engine for GPUs no cpu: each has its own place by default.
    return [*command, "--device", runner.device]


def _start(command: Sequence[str]) -> dict[str, float | None]:
    with tempfile.TemporaryFile("w+") as errors, _largest(_device_memory_now) as device:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        with _largest(lambda: _peak_memory(process.pid)) as resident, process.stdout as output:
            line = output.readline()
            elapsed = time.perf_counter() - started
            output.read()
        process.wait()
        errors.seek(0)
        if not line or process.returncode != 0:
            raise KanoclipError(f"a start ended with {process.returncode}: {one_line(errors.read()) or 'no verdict'}")
    return {
        "first_verdict_s": elapsed,
        "peak_memory_mb": resident[1] / 1e6 if resident else None,
        "device_memory_mb": device[1] - device[0] if device else None,
    }


@contextmanager
def _largest(look: Callable[[], float | None]) -> Iterator[list[float]]:
    """The first value and the largest one of what is looked at again and again; empty when there was none."""
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while (value := look()) is not None:
            seen[:] = [seen[0], max(seen[1], value)] if seen else [value, value]
            if ended.wait(_INTERVAL_S):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def _peak_memory(process: int) -> float | None:
    """Bytes. What wait4 tells is no smaller than what the parent had when it forked, so the system is asked."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024
    return None


def _device_memory_now() -> float | None:
    """MB in use on all GPUs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        done = subprocess.run(_MEMORY, capture_output=True, text=True, timeout=20, check=True)
        return sum(float(line) for line in done.stdout.split()) * (1 << 20) / 1e6
    return None


def main() -> None:
    """The child for torch: one verdict a line."""
    root, name, device, threads, *images = sys.argv[1:]
    bundle = Bundle.open(root)
    backend = open_backend(bundle, name, device, int(threads) or None)
    with Detector(bundle, backend) as detector:
        for path in images:
            image = cv2.imread(path)
            if image is None:
                raise KanoclipError(f"{path} cannot be read")
            sys.stdout.write(f"{detector(np.asarray(image, np.uint8)).score}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
