"""What a newcomer sees of the shipped bundle: seconds to the first verdict, frames a second at 720p, memory.

    python -m kanoclip.benchmarks.first_look --output first-look.json

The video is the example photographs as an unsteady camera sees them, 1280x720, MPEG-4.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.results import write_result
from kanoclip.benchmarks.run_overhead import example_photographs, run
from kanoclip.runtime.bundle import Bundle, shipped_bundle
from kanoclip.runtime.errors import KanoclipError

WIDTH, HEIGHT = 1280, 720
_HOLD = 30
"""Frames for which the camera looks at the same photograph."""


def write_video(path: Path, frames: int) -> None:
    """Writes a video of the example photographs, each moved about and with sensor noise.

    Raises:
        KanoclipError: OpenCV cannot write a video here.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise KanoclipError(f"OpenCV cannot write {path} here: install opencv-python with FFmpeg")
    rng = np.random.default_rng(0)
    larger = (WIDTH + 32, HEIGHT + 32)
    views = cycle(
        cv2.resize(cv2.imread(str(path)), larger, interpolation=cv2.INTER_CUBIC) for path in example_photographs()
    )
    view = next(views)
    for number in range(frames):
        if number % _HOLD == 0:
            view = next(views)
        x, y = rng.integers(0, 32, 2)
        noise = rng.integers(-4, 5, (HEIGHT, WIDTH, 1), dtype=np.int16)
        frame = np.clip(view[y : y + HEIGHT, x : x + WIDTH].astype(np.int16) + noise, 0, 255)
        writer.write(frame.astype(np.uint8))
    writer.release()


def first_verdict(bundle: Path, picture: Path) -> float:
    """Seconds from the command to its first line of results, interpreter and libraries included.

    Raises:
        KanoclipError: It ended without one.
    """
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "run", "--bundle", str(bundle)]
    command += ["--source", str(picture), "--jsonl", "-", "--quiet"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed = time.perf_counter() - started
        process.stdout.read()
    if not line:
        raise KanoclipError(f"kanoclip-run ended with {process.returncode} and said nothing")
    return elapsed


def measure(bundle: Path, video: Path, picture: Path, repeat: int) -> dict[str, Any]:
    """All three figures of one bundle; the first start, which fills the disk's cache, does not count."""
    starts = [first_verdict(bundle, picture) for _ in range(repeat + 1)][1:]
    runs = [run(bundle, video, [], pinned=False) for _ in range(repeat)]
    rates = [summary["fps"] for summary, _ in runs]
    summary, _ = runs[int(np.argsort(rates)[(repeat - 1) // 2])]
    return {
        "precision": Bundle.open(bundle).manifest.precision,
        "first_verdict_s": {"median": float(np.median(starts)), "worst": max(starts)},
        "fps": {"median": summary["fps"], "worst": min(rates)},
        "frames": summary["frames"],
        "stages": summary["stages"],
        "peak_memory_mb": max(max(memory) for _, memory in runs) / 1e6,
    }


@click.command()
@click.option("--bundle", "bundles", type=click.Path(exists=True, path_type=Path), multiple=True, help="Repeatable.")
@click.option("--frames", default=600, show_default=True, help="Length of the video.")
@click.option("--repeat", default=3, show_default=True, help="Runs of everything.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(bundles: tuple[Path, ...], frames: int, repeat: int, output: Path | None) -> None:
    """Measure kanoclip-run on all cores, with the shipped bundle unless others are named."""
    picture = example_photographs()[0]
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch) / "camera.mp4"
        write_video(video, frames)
        found = {b.name: measure(b, video, picture, repeat) for b in bundles or (shipped_bundle(),)}
    click.echo(json.dumps(found, indent=2))
    if output is not None:
        write_result(output, {"video": f"{WIDTH}x{HEIGHT}, {frames} frames", "bundles": found})


if __name__ == "__main__":
    main()
