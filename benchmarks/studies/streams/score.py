"""What `kanoclip-score` does on this machine: two processes against one, what reading an image costs, and memory.

    python -m kanoclip.benchmarks.studies.streams.score nano.kanoclip --output score-nano.json
    python -m kanoclip.benchmarks.studies.streams.score nano.kanoclip --rounds 0 --paths 100000 --side 32

The images are the example photographs at 1 megapixel with camera-like noise, saved as JPEG. Rounds with one process
and with more are taken in turns, so that what else the machine does hits both.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.process_samples import children_of, sample_process
from kanoclip.benchmarks.studies.streams.run_overhead import example_photographs
from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.ops.score.bulk import SLICE
from kanoclip.runtime.ops.score.measures import measure

WIDTH, HEIGHT = 1152, 864
"""One megapixel."""
A_FOLDER = 1000
EVERY_S = 0.5
SETTLED = 0.1
"""Share of the images after which every process has its working size."""


def make_jpegs(distinct: int, width: int = WIDTH, height: int = HEIGHT) -> list[bytes]:
    """The example photographs at a size, with noise."""
    noise = np.random.default_rng(0)
    encoded = []
    for path in islice(cycle(example_photographs()), distinct):
        large = cv2.resize(cv2.imread(str(path)), (width, height), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + noise.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
        encoded.append(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return encoded


def write_images(folder: Path, count: int, encoded: list[bytes]) -> None:
    """Fills folders of a thousand images each."""
    for number, content in zip(range(count), cycle(encoded), strict=False):
        place = folder / f"{number // A_FOLDER:04}"
        if number % A_FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"{number:07}.jpg").write_bytes(content)


def reading(encoded: list[bytes], size: tuple[int, int], repeat: int = 5) -> dict[str, float]:
    """Processor time of one thread for an image, in milliseconds, by step."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        frames = [cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) for content in encoded]
        smalls = [resize(frame, *size) for frame in frames]
        steps: dict[str, Callable[[int], Any]] = {
            "decode": lambda n: cv2.imdecode(np.frombuffer(encoded[n], np.uint8), cv2.IMREAD_COLOR),
            "resize": lambda n: resize(frames[n], *size),
            "measure": lambda n: measure(frames[n], smalls[n]),
        }
        spent = {}
        for name, step in steps.items():
            times = []
            for _ in range(repeat):
                started = time.thread_time()
                for number in range(len(encoded)):
                    step(number)
                times.append((time.thread_time() - started) * 1e3 / len(encoded))
            spent[name] = statistics.median(times)
        return spent
    finally:
        cv2.setNumThreads(threads)


def score_once(bundle: Path, source: Path, output: Path, arguments: list[str]) -> dict[str, Any]:
    """Runs the installed kanoclip-score; returns its summary.

    Raises:
        KanoclipError: It failed.
    """
    process = start(bundle, source, output, arguments)
    out, err = process.communicate()
    return summary(process.returncode, out, err)


def start(bundle: Path, source: Path, output: Path, arguments: list[str]) -> subprocess.Popen[str]:
    """Starts it."""
    program = str(Path(sys.executable).with_name("kanoclip-score"))
    command = [program, "--bundle", str(bundle.resolve()), "--source", str(source), "--output", str(output)]
    return subprocess.Popen(
        [*command, "--json", "--quiet", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def summary(code: int, out: str, err: str) -> dict[str, Any]:
    """What it printed.

    Raises:
        KanoclipError: It failed.
    """
    if code != 0:
        raise KanoclipError(f"kanoclip-score failed: {err.strip().splitlines()[-1] if err.strip() else code}")
    reported: dict[str, Any] = json.loads(out)
    return reported


def in_turns(bundle: Path, source: Path, scratch: Path, processes: int, rounds: int, arguments: list[str]) -> Any:
    """Images/s with one process and with more, the ratio of each pair of runs, and processor time an image.

    The last holds starting as well. Where other programs take a share of the cores, it tells whether processes are in
    each other's way, which the ratio then does not.
    """
    rates: dict[int, list[float]] = {1: [], processes: []}
    costs: dict[int, list[float]] = {1: [], processes: []}
    for number in range(rounds):
        for count in (1, processes) if number % 2 == 0 else (processes, 1):
            output = scratch / f"{number}-{count}.parquet"
            before = _children_cpu_s()
            reported = score_once(bundle, source, output, ["--processes", str(count), *arguments])
            rates[count].append(reported["pictures_per_s"])
            costs[count].append((_children_cpu_s() - before) * 1e3 / reported["pictures"])
    tables = {path.read_bytes() for path in scratch.glob("*.parquet")}
    ratios = [more / one for one, more in zip(rates[1], rates[processes], strict=True)]
    return {
        "processes": processes,
        "pictures_per_s": {str(count): values for count, values in rates.items()},
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "cpu_ms_a_picture": {str(count): values for count, values in costs.items()},
        "tables_that_differ": len(tables) - 1,
    }


def memory(bundle: Path, source: Path, output: Path, processes: int, arguments: list[str]) -> dict[str, Any]:
    """Memory of each process that is no file's, MB: after a tenth of the images, at the most, and in merging."""
    process = start(bundle, source, output, ["--processes", str(processes), *arguments])
    parts = output.with_name(output.name + ".run") / "parts"
    first: dict[int, float] = {}
    most: dict[int, float] = {}
    merging, settled, scored = 0.0, False, False
    all_parts = sum(1 for _ in source.rglob("*.jpg")) // SLICE
    while process.poll() is None:
        time.sleep(EVERY_S)
        done = sum(1 for _ in parts.glob("*.parquet"))
        settled, scored = settled or done >= SETTLED * all_parts, scored or done >= all_parts
        for pid in [process.pid, *children_of(process.pid)] if settled else []:
            try:
                size = sample_process(pid).anonymous_mb
            except OSError:  # it has just ended
                continue
            if scored:
                merging = max(merging, size)
            else:
                first.setdefault(pid, size)
                most[pid] = max(most.get(pid, 0.0), size)
    out, err = process.communicate()
    reported = summary(process.returncode, out, err)
    names = ["first process", *(f"engine {n}" for n in range(1, len(first)))]
    return {
        "pictures": reported["pictures"],
        "pictures_per_s": reported["pictures_per_s"],
        "bytes_a_row": output.stat().st_size / reported["pictures"],
        "anonymous_mb": {
            name: {"settled": first[pid], "most": most[pid]} for name, pid in zip(names, first, strict=False)
        },
        "merging_anonymous_mb": merging,
    }


def _children_cpu_s() -> float:
    """Processor time of all programs that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command()
@click.argument("bundle", required=False, metavar="[BUNDLE]")
@click.option("--pictures", "images", type=click.IntRange(min=1), default=400, show_default=True, help="In each round.")
@click.option("--rounds", type=click.IntRange(min=0), default=5, show_default=True, help="Runs with each count.")
@click.option("--processes", type=click.IntRange(min=2), default=2, show_default=True, help="Against one.")
@click.option("--paths", type=click.IntRange(min=0), default=0, help="Also watch memory over so many images.")
@click.option("--side", type=click.IntRange(min=8), default=64, show_default=True, help="Of those images.")
@click.option("--backend", default="auto", show_default=True, help="As of kanoclip-score.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(
    bundle: str | None,
    images: int,
    rounds: int,
    processes: int,
    paths: int,
    side: int,
    backend: str,
    output: Path | None,
) -> None:
    """Measure bulk scoring."""
    opened = Bundle.open(find_bundle(bundle, Path.cwd()))
    encoded = make_jpegs(20)
    result: dict[str, Any] = {
        "bundle": opened.manifest.name,
        "bytes_a_picture": statistics.mean(len(content) for content in encoded),
        "reading_cpu_ms": reading(encoded, opened.manifest.frame_size),
    }
    arguments = ["--backend", backend]
    with tempfile.TemporaryDirectory(prefix="kanoclip-score-") as name:
        scratch = Path(name)
        if rounds:
            write_images(scratch / "images", images, encoded)
            result["in_turns"] = in_turns(opened.root, scratch / "images", scratch, processes, rounds, arguments)
        if paths:
            write_images(scratch / "many", paths, make_jpegs(20, side, side))
            result["memory"] = memory(opened.root, scratch / "many", scratch / "many.parquet", processes, arguments)
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
