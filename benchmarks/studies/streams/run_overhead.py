"""What `kanoclip-run` costs outside inference, stage by stage, over 1080p images; and its memory over many frames.

    python -m kanoclip.benchmarks.studies.streams.run_overhead nano.kanoclip
    python -m kanoclip.benchmarks.studies.streams.run_overhead nano.kanoclip --frames 5000

The images are the example photographs enlarged to 1920x1080 with camera-like noise, saved as JPEG. The threads
of kanoclip-run share the core, so a stage's wall time holds the others' work: its cost is its processor time ("cpu").
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import resources
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import psutil

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.errors import KanoclipError


def example_photographs() -> list[Path]:
    """The photographs in `examples/`, by name."""
    return sorted(Path(str(resources.files("kanoclip.examples").joinpath("hazelnut_toy/test"))).rglob("*.jpg"))


def make_images(folder: Path, count: int, distinct: int = 20) -> None:
    """Fills a folder with 1080p JPEGs made from the example photographs; images repeat after `distinct`."""
    photographs = example_photographs()
    noise = np.random.default_rng(0)
    encoded = []
    for path in islice(cycle(photographs), distinct):
        large = cv2.resize(cv2.imread(str(path)), (1920, 1080), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + noise.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
        encoded.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    for index, content in zip(range(count), cycle(encoded), strict=False):
        (folder / f"{index:05d}.jpg").write_bytes(content)


def run(bundle: Path, source: Path, arguments: list[str], *, pinned: bool) -> tuple[dict[str, Any], list[int]]:
    """Runs kanoclip-run and watches its memory.

    Args:
        bundle: What to run.
        source: What to score.
        arguments: Further ones.
        pinned: On one core, OpenCV and the engine on one thread each.

    Returns:
        Its JSON summary, and its resident memory in bytes, sampled every 0.5 s.
    """
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "run", "--bundle", str(bundle)]
    command += ["--source", str(source), "--no-table", "--json", *arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [*command, "--threads", "1"] if pinned else command,
            stdout=out,
            stderr=err,
            env={**os.environ, "OPENCV_FOR_THREADS_NUM": "1"} if pinned else None,
            preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if pinned else None,
        )
        memory = []
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                memory.append(psutil.Process(process.pid).memory_info().rss)
            time.sleep(0.5)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise KanoclipError(f"kanoclip-run failed: {err.read().strip()}")
        summary: dict[str, Any] = json.load(out)
        return summary, [size for size in memory if size]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--frames", default=200, show_default=True, help="Images; some thousands show whether memory is flat.")
@click.option("--repeat", default=1, show_default=True, help="Runs; the one with the median cost is reported.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(bundle: Path, frames: int, repeat: int, output: Path | None) -> None:
    """Measure kanoclip-run with BUNDLE on one core, writing JSON lines."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pictures"
        folder.mkdir()
        make_images(folder, frames)
        arguments = ["--jsonl", str(Path(scratch) / "frames.jsonl")]
        runs = [run(bundle, folder, arguments, pinned=True) for _ in range(repeat)]
    runs.sort(key=lambda run: float(run[0]["outside_inference_cpu_ms"]))
    summary, memory = runs[(repeat - 1) // 2]
    # The first fifth holds start-up and the allocators' growth to their working size.
    settled = memory[len(memory) // 5 :]
    fifth = max(len(settled) // 5, 1)
    result = {
        "bundle": bundle.name,
        "frames": summary["frames"],
        "stages": summary["stages"],
        "outside_inference_cpu_ms": summary["outside_inference_cpu_ms"],
        "outside_inference_cpu_ms_of_all_runs": [run["outside_inference_cpu_ms"] for run, _ in runs],
        "memory_mb": {
            "start_of_steady_state": float(np.median(settled[:fifth])) / 1e6,
            "end": float(np.median(settled[-fifth:])) / 1e6,
            "peak": max(memory) / 1e6,
        },
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
