"""One image's time, start and memory: ours against anomalib's OpenVINO inferencer, in turns on one machine.

    python -m kanoclip.benchmarks.studies.rivals.latency --output rivals-latency.json

All see one uint8 image of 256 x 256 pixels and give map and score; all run in OpenVINO on the CPU in float32 with its
default threads. Ours has a reference memory of 1,024 rows.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.rivals.accuracy import OURS
from kanoclip.runtime.types import Image

SIDE = 256
_OURS = """
import sys, numpy as np
from kanoclip.runtime import Detector
with Detector.load(sys.argv[1], backend="openvino") as detector:
    detector(np.full((256, 256, 3), 90, np.uint8))
"""
_THEIRS = """
import sys, numpy as np
from anomalib.deploy import OpenVINOInferencer
OpenVINOInferencer(sys.argv[1], device="CPU").predict(np.full((256, 256, 3), 90, np.uint8))
"""


def exported(folder: Path, images: list[Image]) -> dict[str, Path]:
    """Anomalib's models, fitted and exported by its own means, by title."""
    from kanoclip.benchmarks.studies.rivals.models import FOR_SPEED, build, fit, lite_weights

    weights = lite_weights()
    found = {}
    for number, rival in enumerate(FOR_SPEED):
        model = build(rival, weights)
        if rival.kind != "efficient_ad":
            fit(model, images)
        found[rival.title] = Path(model.to_openvino(folder / str(number), input_size=(SIDE, SIDE)))
    return found


def started(code: str, argument: Path, repeats: int) -> tuple[float, float]:
    """Seconds from a process's start to its end with one result, the median; and its largest resident MB."""
    seconds, largest = [], 0.0
    for _ in range(repeats):
        began = perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code, str(argument)], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{argument}: exit status {status}")
        seconds.append(perf_counter() - began)
        largest = max(largest, usage.ru_maxrss / 1024)
    return float(np.median(seconds)), largest


def with_memory(folder: Path, images: list[Image]) -> Path:
    """A copy of the shipped bundle that has learned the images, by the installed command."""
    good = folder / "good"
    good.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(good / f"{number}.png"), image)
    bundle = folder / "own.kanoclip"
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "learn", "--output", str(bundle)]
    subprocess.run([*command, "--source", str(good), "--quiet"], check=True)
    return bundle


@click.command()
@click.option("--rounds", type=click.IntRange(min=3), default=40, show_default=True)
@click.option("--starts", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(rounds: int, starts: int, output: Path | None) -> None:
    """Measure ours and anomalib's."""
    from anomalib.deploy import OpenVINOInferencer

    from kanoclip.runtime import Detector

    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (32, 32, 3), np.uint8), (SIDE, SIDE)) for _ in range(4)]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="kanoclip-rivals-") as scratch:
        bundle, theirs = with_memory(Path(scratch), images), exported(Path(scratch), images)
        detector = Detector.load(bundle, backend="openvino")
        runs: dict[str, Callable[[], Any]] = {OURS: lambda: detector(images[0])}
        for title, path in theirs.items():
            inferencer = OpenVINOInferencer(path, device="CPU")
            runs[title] = lambda inferencer=inferencer: inferencer.predict(images[0])
        times: dict[str, list[float]] = {title: [] for title in runs}
        order = random.Random(0)
        for number in range(rounds + 3):
            for title in order.sample(list(runs), len(runs)):
                began = perf_counter()
                runs[title]()
                if number >= 3:
                    times[title].append((perf_counter() - began) * 1e3)
        detector.close()
        base = np.array(times[OURS])
        for title, found in times.items():
            code, what = (_OURS, bundle) if title == OURS else (_THEIRS, theirs[title])
            seconds, largest = started(code, what, starts)
            rows[title] = {
                "milliseconds": float(np.median(found)),
                "times_ours": float(np.median(np.array(found) / base)),
                "start_seconds": seconds,
                "largest_mb": largest,
            }
            click.echo(f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in rows[title].items()))
    if output is not None:
        write_result(output, {"rounds": rounds, "rows": rows})


if __name__ == "__main__":
    main()
