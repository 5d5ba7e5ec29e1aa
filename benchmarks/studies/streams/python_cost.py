"""What Python itself costs a frame: all of kanoclip-run's pipeline but decoding, resizing and the engine.

    python -m kanoclip.benchmarks.studies.streams.python_cost --output benchmarks/results/streams/python-cost.json

The frames are in memory at the model's size and the engine answers at once, so what is left is this project's own code:
threads and their hand-over, the detector, the decision, statistics and JSON lines. What is measured is the processor
time of the whole process, which other work on the machine does not add to as it does to wall time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines.base import BaseBackend
from kanoclip.runtime.engines.inputs import Floats, Frames, Indices, MemoryTensors
from kanoclip.runtime.errors import BackendError
from kanoclip.runtime.sinks import JsonLinesSink
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import Frame

CASES = tuple(product((1, 2), (1, 8)))
"""Workers, and the most frames that one takes at a time."""


class MemorySource(BaseSource):
    """Frames of noise that are there already."""

    name = "memory"
    live = False
    fps: float | None = None
    root: Path | None = None

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.count: int | None = count
        self._images = np.random.default_rng(0).integers(0, 256, (8, *size, 3), np.uint8)

    def frames(self) -> Iterator[Frame]:
        """Yields them, the same ones again and again."""
        for index in range(self.count or 0):
            yield Frame(index, self.name, time.time(), self._images[index % len(self._images)], 0.0)

    def close(self) -> None:
        """Nothing to release."""


class InstantBackend(BaseBackend):
    """Answers at once: a map with as many hot squares as asked for."""

    name, on_cpu = "instant-cpu", True

    def __init__(self, size: tuple[int, int], workers: int, batch: int, regions: int) -> None:
        self.workers = workers
        self._maps = np.zeros((batch, *size), np.float32)
        for number in range(regions):
            self._maps[:, 2 : size[0] // 8, 8 * number : 8 * number + 6] = 0.9
        self._scores = np.full(batch, 0.5, np.float32)

    def run(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> tuple[Floats, Floats]:
        """See `Backend.run`."""
        return self._maps[: len(frames)].copy(), self._scores[: len(frames)].copy()

    def describe(self, frames: Frames) -> Floats:
        """See `Backend.describe`.

        Raises:
            BackendError: Always: what is measured is the cost of detecting.
        """
        raise BackendError(f"{self.name} computes maps and scores alone: describe with another engine")

    def close(self) -> None:
        """Nothing to release."""


def microseconds(bundle: Bundle, frames: int, workers: int, batch: int, regions: int) -> float:
    """Processor time a frame, of all threads.

    Args:
        bundle: For its sizes, classes and thresholds; its graph does not run.
        frames: How many to score.
        workers: Threads that score.
        batch: Most frames that a thread takes at a time.
        regions: Hot squares in each map.
    """
    size = bundle.manifest.frame_size
    detector = Detector(bundle, InstantBackend(size, workers, batch, regions))
    config = PipelineConfig(Policy.WAIT, workers=workers, batch=batch)
    sink = JsonLinesSink("/dev/null")
    started = time.process_time()
    summary = Pipeline(MemorySource(frames, size), detector, [sink], config).run()
    return (time.process_time() - started) / summary.frames * 1e6


@click.command()
@click.option("--frames", default=3000, show_default=True, help="Of each run.")
@click.option("--repeat", default=5, show_default=True, help="Runs of each case, in turns.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(frames: int, repeat: int, output: Path | None) -> None:
    """Measure the pipeline with an engine that answers at once, in microseconds of processor time a frame."""
    bundle = Bundle.open(shipped_bundle())
    cv2.setNumThreads(1)  # as kanoclip-run does where frames have a thread each
    spent: dict[tuple[int, int, int], list[float]] = {(*case, r): [] for case in CASES for r in (0, 3)}
    microseconds(bundle, 200, 1, 1, 3)
    for _ in range(repeat):
        for (workers, batch, regions), found in spent.items():
            found.append(microseconds(bundle, frames, workers, batch, regions))
    cases: list[dict[str, Any]] = [
        {
            "lanes": workers,
            "batch": batch,
            "regions": regions,
            "microseconds": {"median": float(np.median(found)), "least": min(found), "most": max(found)},
        }
        for (workers, batch, regions), found in spent.items()
    ]
    result = {"bundle": bundle.manifest.name, "frames": frames, "repeat": repeat, "cases": cases}
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
