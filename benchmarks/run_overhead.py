"""What `kanoclip-run` costs outside inference, stage by stage, over 1080p pictures; and its memory over many frames.

    python -m kanoclip.benchmarks.run_overhead nano.kanoclip
    python -m kanoclip.benchmarks.run_overhead nano.kanoclip --soak 5000

The pictures are the example photographs enlarged to 1920x1080 with camera-like noise, saved as JPEG.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.results import write_result
from kanoclip.runtime.errors import KanoclipError

PAGE = os.sysconf("SC_PAGE_SIZE")


def make_pictures(folder: Path, count: int, distinct: int = 20) -> None:
    """Fills a folder with 1080p JPEGs made from the example photographs; pictures repeat after `distinct`."""
    photographs = sorted(Path(str(resources.files("kanoclip.examples").joinpath("hazelnut_toy/test"))).rglob("*.jpg"))
    noise = np.random.default_rng(0)
    encoded = []
    for path in islice(cycle(photographs), distinct):
        large = cv2.resize(cv2.imread(str(path)), (1920, 1080), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + noise.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
        encoded.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    for index, content in zip(range(count), cycle(encoded), strict=False):
        (folder / f"{index:05d}.jpg").write_bytes(content)


@dataclass(frozen=True)
class Run:
    """One run of kanoclip-run.

    Attributes:
        summary: Its JSON summary.
        cpu_s: Processor seconds of the whole process, all threads.
        memory: Resident memory in bytes, sampled every 0.5 s.
    """

    summary: dict[str, Any]
    cpu_s: float
    memory: list[int]


def run(bundle: Path, source: Path, arguments: list[str]) -> Run:
    """Runs kanoclip-run with one thread for the engine and none beside the calling one for OpenCV.

    So every stage costs one core only, and its wall time is its cost as long as a second core takes the other threads.
    """
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "run", "--bundle", str(bundle)]
    command += ["--source", str(source), "--threads", "1", "--no-table", "--json", *arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, "OPENCV_FOR_THREADS_NUM": "1"})
        memory = []
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            with contextlib.suppress(OSError, IndexError):
                memory.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE)
            time.sleep(0.5)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise KanoclipError(f"kanoclip-run failed: {err.read().strip()}")
        return Run(json.load(out), usage.ru_utime + usage.ru_stime, [size for size in memory if size])


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--frames", default=200, show_default=True, help="Pictures.")
@click.option("--soak", type=int, default=0, metavar="N", help="Judge N pictures instead, and watch the memory.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(bundle: Path, frames: int, soak: int, output: Path | None) -> None:
    """Measure kanoclip-run with BUNDLE, writing JSON lines."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pictures"
        folder.mkdir()
        make_pictures(folder, soak or frames)
        arguments = ["--jsonl", str(Path(scratch) / "frames.jsonl")]
        start_up = run(bundle, folder, [*arguments, "--max-frames", "1"])
        whole = run(bundle, folder, arguments)
    count = whole.summary["frames"]
    cpu_ms = (whole.cpu_s - start_up.cpu_s) / (count - 1) * 1e3
    settled = whole.memory[len(whole.memory) // 5 :]
    fifth = max(len(settled) // 5, 1)
    result = {
        "bundle": bundle.name,
        "frames": count,
        "stages": whole.summary["stages"],
        "outside_inference_ms": whole.summary["outside_inference_ms"],
        "processor_ms_per_frame": cpu_ms,
        "processor_ms_outside_inference": cpu_ms - whole.summary["stages"]["inference"]["mean"],
        "memory_mb": {
            "start_of_steady_state": float(np.median(settled[:fifth])) / 1e6,
            "end": float(np.median(settled[-fifth:])) / 1e6,
            "peak": max(whole.memory) / 1e6,
        },
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
