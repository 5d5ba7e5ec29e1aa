"""fps of tiled frames: all tiles of a frame in one run of the graph, or each in a run of its own; and whole frames.

    python -m kanoclip.benchmarks.studies.graphs.tiles --output benchmarks/results/graphs/tiles-nano.json

The shipped model is exported once more with a dynamic batch (a minute), or an exported bundle is named. Frames come
from memory and go through kanoclip-run's pipeline. All cases take turns, round by round.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.graphs.batches import export, rate
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.store import with_tiles
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.tiles import parse_grid
from kanoclip.runtime.engines import BACKENDS, create_backend
from kanoclip.runtime.engines.autoselect import cpu_engines
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.system.hardware import workers_for

WHOLE, SINGLE, TOGETHER = "whole frame", "runs of one tile", "one run of all tiles"


def measure(
    bundle: Bundle, grid: TileGrid, backends: tuple[str, ...], frames: int, repeat: int
) -> list[dict[str, Any]]:
    """Rates of all cases.

    Args:
        bundle: With a dynamic batch of at least the tiles' number.
        grid: How frames are cut.
        backends: On the CPU.
        frames: Of each run of the pipeline.
        repeat: Rounds.

    Returns:
        For each backend, workers and case: `fps`, and the median of its time over that of the runs of one tile.
    """
    tiled = with_tiles(bundle, grid)
    manifests = {
        WHOLE: bundle.manifest,
        SINGLE: replace(tiled, max_batch=1),
        TOGETHER: replace(tiled, max_batch=grid.count),
    }
    rates: dict[tuple[str, int, str], list[float]] = {}
    with ExitStack() as opened:
        detectors = {}
        for name in backends:
            for workers in range(1, workers_for(False, None) + 1):
                backend = opened.enter_context(closing(create_backend(bundle, name, "cpu", workers=workers)))
                for case, manifest in manifests.items():
                    detectors[name, workers, case] = Detector(replace(bundle, manifest=manifest), backend)
        for key, detector in detectors.items():
            rates[key] = []
            rate(detector, 2, 1)
        for _ in range(repeat):
            for key, detector in detectors.items():
                rates[key].append(rate(detector, frames, 1))
    return [
        {
            "backend": name,
            "workers": workers,
            "case": case,
            "fps": float(np.median(found)),
            "time_ratio": float(np.median(np.divide(rates[name, workers, SINGLE], found))),
        }
        for (name, workers, case), found in rates.items()
    ]


@click.command()
@click.option("--bundle", type=click.Path(exists=True, path_type=Path), help="Default: nano, exported for this.")
@click.option("--tiles", default="3x1", show_default=True, metavar="ROWSxCOLUMNS")
@click.option(
    "--backend", "backends", type=click.Choice(BACKENDS), multiple=True, help="Repeatable. Default: all of the CPU."
)
@click.option("--frames", default=24, show_default=True, help="Of each run.")
@click.option("--repeat", default=7, show_default=True, help="Rounds.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(
    bundle: Path | None, tiles: str, backends: tuple[str, ...], frames: int, repeat: int, output: Path | None
) -> None:
    """Measure fps of tiled frames on the CPU, with ONNX Runtime and OpenVINO unless others are named."""
    try:
        grid = parse_grid(tiles)
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        opened = Bundle.open(bundle or export(Path(scratch), grid.count))
        manifest = opened.manifest
        if not manifest.dynamic_batch or manifest.max_batch < grid.count:
            raise click.UsageError(
                f"{bundle} does not take a batch of {grid.count} and of 1: export it with --dynamic-batch"
            )
        found = measure(opened, grid, backends or tuple(cpu_engines()), frames, repeat)
    click.echo(json.dumps(found, indent=2))
    if output is not None:
        about = {"bundle": manifest.name, "tiles": grid.title, "frames": frames, "repeat": repeat}
        write_result(output, {**about, "cases": found})


if __name__ == "__main__":
    main()
