"""fps by workers and batch size: what several frames in one run of the graph give beside two runs side by side.

    python -m kanoclip.benchmarks.studies.graphs.batches --output benchmarks/results/graphs/batches-nano.json

The shipped model is exported once more with `--dynamic-batch` (a minute), or an exported bundle is named. Frames come
from memory at the model's size and go through kanoclip-run's pipeline. All cases take turns, round by round, and each
ratio is the median over the rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.python_cost import MemorySource
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines import BACKENDS
from kanoclip.runtime.engines.autoselect import cpu_engines
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.hardware import workers_for
from kanoclip.runtime.system.queues import Policy


def export(folder: Path, most: int) -> Path:
    """Exports the shipped model with a batch axis from 1 to `most`.

    Raises:
        KanoclipError: The export failed.
    """
    bundle = folder / f"nano-batch-{most}.kanoclip"
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "export", "--output", str(bundle)]
    done = subprocess.run([*command, "--dynamic-batch", str(most)], capture_output=True, text=True)
    if done.returncode:
        raise KanoclipError(f"kanoclip-export failed: {done.stderr.strip()}")
    return bundle


def rate(detector: Detector, frames: int, batch: int) -> float:
    """Fps through the pipeline, with as many workers as the detector allows."""
    config = PipelineConfig(Policy.WAIT, workers=detector.workers, batch=batch)
    return Pipeline(MemorySource(frames, detector.frame_size), detector, [], config).run().fps


def measure(
    bundle: Path, backends: tuple[str, ...], batches: tuple[int, ...], frames: int, repeat: int
) -> list[dict[str, Any]]:
    """Rates of all cases.

    Args:
        bundle: With a dynamic batch.
        backends: On the CPU.
        batches: Most frames in a run; the first is what the others are compared with.
        frames: Of each run of the pipeline.
        repeat: Rounds.

    Returns:
        For each backend, workers and batch: `fps`, and its ratio to the first batch on one and on as many workers.
    """
    cases: dict[tuple[str, int, int], list[float]] = {}
    with ExitStack() as opened:
        detectors = {
            (backend, workers): opened.enter_context(
                Detector.load(bundle, backend=backend, device="cpu", workers=workers)
            )
            for backend in backends
            for workers in range(1, workers_for(False, None) + 1)
        }
        for (backend, workers), detector in detectors.items():
            for batch in batches:
                cases[backend, workers, batch] = []
                rate(detector, 2 * workers * batch, batch)  # memory for a size is taken at its first use
        for _ in range(repeat):
            for (backend, workers, batch), rates in cases.items():
                rates.append(rate(detectors[backend, workers], frames, batch))
    found = []
    for (backend, workers, batch), rates in cases.items():
        ratios = {
            name: float(np.median(np.divide(rates, cases[backend, others, batches[0]])))
            for name, others in (("ratio_to_one_lane", 1), ("ratio_to_these_lanes", workers))
        }
        found.append({"backend": backend, "lanes": workers, "batch": batch, "fps": float(np.median(rates)), **ratios})
    return found


@click.command()
@click.option("--bundle", type=click.Path(exists=True, path_type=Path), help="Default: nano, exported for this.")
@click.option(
    "--backend", "backends", type=click.Choice(BACKENDS), multiple=True, help="Repeatable. Default: all of the CPU."
)
@click.option("--batch", "batches", type=click.IntRange(min=1), multiple=True, help="Repeatable. Default: 1, 2, 4, 8.")
@click.option("--frames", default=96, show_default=True, help="Of each run.")
@click.option("--repeat", default=5, show_default=True, help="Rounds.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(
    bundle: Path | None,
    backends: tuple[str, ...],
    batches: tuple[int, ...],
    frames: int,
    repeat: int,
    output: Path | None,
) -> None:
    """Measure fps by workers and batch on the CPU, with ONNX Runtime and OpenVINO unless others are named."""
    batches = batches or (1, 2, 4, 8)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        path = bundle or export(Path(scratch), max(batches))
        manifest = Bundle.open(path).manifest
        if not manifest.dynamic_batch or manifest.max_batch < max(batches):
            raise click.UsageError(
                f"{path} does not take every batch up to {max(batches)}: export it with --dynamic-batch"
            )
        found = measure(path, backends or tuple(cpu_engines()), batches, frames, repeat)
    click.echo(json.dumps(found, indent=2))
    if output is not None:
        write_result(output, {"bundle": manifest.name, "frames": frames, "repeat": repeat, "cases": found})


if __name__ == "__main__":
    main()
