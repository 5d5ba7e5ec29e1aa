"""What a newcomer sees of the shipped bundle: seconds to the first verdict, fps at 720p, memory.

    python -m kanoclip.benchmarks.studies.streams.first_look --output first-look.json
    python -m kanoclip.benchmarks.studies.streams.first_look --backend onnxruntime --backend openvino

Bundles and backends take turns, run by run, so that what else the machine does hits all of them. The video is the
example photographs as an unsteady camera sees them, 1280x720, MPEG-4. A first start finds no saved engines; Python's
own files are compiled in both cases, as pip does it when it installs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.run_overhead import example_photographs, run
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.engines import BACKENDS
from kanoclip.runtime.errors import KanoclipError

WIDTH, HEIGHT = 1280, 720
_HOLD = 30
"""Frames for which the camera looks at the same photograph."""


def write_video(path: Path, frames: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Writes a video of the example photographs, each moved about and with sensor noise.

    Args:
        path: Ends in `.mp4`.
        frames: How many.
        size: (width, height) in pixels.

    Raises:
        KanoclipError: OpenCV cannot write a video here.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, size)
    if not writer.isOpened():
        raise KanoclipError(f"OpenCV cannot write {path} here: install opencv-python with FFmpeg")
    rng = np.random.default_rng(0)
    width, height = size
    larger = (width + 32, height + 32)
    views = cycle(
        cv2.resize(cv2.imread(str(path)), larger, interpolation=cv2.INTER_CUBIC) for path in example_photographs()
    )
    view = next(views)
    for number in range(frames):
        if number % _HOLD == 0:
            view = next(views)
        x, y = rng.integers(0, 32, 2)
        noise = rng.integers(-4, 5, (height, width, 1), dtype=np.int16)
        frame = np.clip(view[y : y + height, x : x + width].astype(np.int16) + noise, 0, 255)
        writer.write(frame.astype(np.uint8))
    writer.release()


def first_verdict(bundle: Path, image: Path, backend: str, cache: Path) -> float:
    """Seconds from the command to its first line of results, interpreter and libraries included.

    Args:
        bundle: What to run.
        image: What to score.
        backend: By which engine.
        cache: Where the commands save what makes later starts faster; empty for a first start.

    Raises:
        KanoclipError: It ended without one.
    """
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "run", "--bundle", str(bundle)]
    command += ["--source", str(image), "--backend", backend, "--jsonl", "-", "--quiet"]
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(cache), "PYTHONPYCACHEPREFIX": f"{cache}-python"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed = time.perf_counter() - started
        process.stdout.read()
    if not line:
        raise KanoclipError(f"kanoclip-run ended with {process.returncode} and said nothing")
    return elapsed


def measure(
    cases: Sequence[tuple[Path, str]], video: Path, image: Path, scratch: Path, repeat: int
) -> list[dict[str, Any]]:
    """All figures of each bundle on each backend.

    Args:
        cases: Bundles and backends.
        video: For the rate.
        image: For the first verdict.
        scratch: For caches.
        repeat: Runs of everything.

    Returns:
        Figures in the order of `cases`; `fps_ratio` is to the first one, the median over the repetitions.
    """
    cache = scratch / "cache"
    for case in cases:
        first_verdict(case[0], image, case[1], cache)
    starts: list[tuple[list[float], list[float]]] = [([], []) for _ in cases]
    runs: list[list[tuple[dict[str, Any], list[int]]]] = [[] for _ in cases]
    for _ in range(repeat):
        for number, (bundle, backend) in enumerate(cases):
            for entry in cache.iterdir():
                shutil.rmtree(entry)
            for times in starts[number]:
                times.append(first_verdict(bundle, image, backend, cache))
            runs[number].append(run(bundle, video, ["--backend", backend], pinned=False))
    rates = np.array([[summary["fps"] for summary, _ in some] for some in runs])
    ratios = np.median(rates / rates[0], axis=1)
    return [_figures(case, starts[number], runs[number], float(ratios[number])) for number, case in enumerate(cases)]


def _figures(
    case: tuple[Path, str],
    starts: tuple[list[float], list[float]],
    runs: list[tuple[dict[str, Any], list[int]]],
    ratio: float,
) -> dict[str, Any]:
    rates = [summary["fps"] for summary, _ in runs]
    summary, _ = runs[int(np.argsort(rates)[(len(runs) - 1) // 2])]
    return {
        "bundle": case[0].name,
        "backend": case[1],
        "precision": Bundle.open(case[0]).manifest.precision,
        **{
            name: {"median": float(np.median(times)), "worst": max(times)}
            for name, times in zip(("first_start_s", "first_verdict_s"), starts, strict=True)
        },
        "fps": {"median": summary["fps"], "worst": min(rates), "best": max(rates)},
        "fps_ratio": ratio,
        "frames": summary["frames"],
        "stages": summary["stages"],
        "peak_memory_mb": max(max(memory) for _, memory in runs) / 1e6,
    }


@click.command()
@click.option("--bundle", "bundles", type=click.Path(exists=True, path_type=Path), multiple=True, help="Repeatable.")
@click.option("--backend", "backends", type=click.Choice(BACKENDS), multiple=True, help="Repeatable. Default: auto.")
@click.option("--frames", default=600, show_default=True, help="Length of the video.")
@click.option("--repeat", default=3, show_default=True, help="Runs of everything.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(bundles: tuple[Path, ...], backends: tuple[str, ...], frames: int, repeat: int, output: Path | None) -> None:
    """Measure kanoclip-run on all cores, with the shipped bundle unless others are named."""
    image = example_photographs()[0]
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / "camera.mp4"
        write_video(video, frames)
        cases = list(product(bundles or (shipped_bundle(),), backends or ("auto",)))
        found = measure(cases, video, image, Path(scratch), repeat)
    click.echo(json.dumps(found, indent=2))
    if output is not None:
        write_result(output, {"video": f"{WIDTH}x{HEIGHT}, {frames} frames", "runs": found})


if __name__ == "__main__":
    main()
