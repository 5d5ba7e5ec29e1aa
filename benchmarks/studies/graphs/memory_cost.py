"""What a reference memory costs an inference, by its rows, against the same graph with none and one that takes none.

    python -m kanoclip.benchmarks.studies.graphs.memory_cost --output benchmarks/results/graphs/memory-cost-nano.json
    python -m kanoclip.benchmarks.studies.graphs.memory_cost --backbone vit-l-14-336 --rows 2304 --rounds 8

All cases take turns on one thread, in another order each round. What is counted is the processor's time, which what
else runs on the machine changes less than the clock's. Another backbone than nano is exported with seeded weights, for
its speed alone.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from time import process_time
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import Backend, create_backend
from kanoclip.runtime.engines.inputs import MemoryTensors
from kanoclip.runtime.engines.reference import probe_memory
from kanoclip.runtime.errors import KanoclipError

TAKES_NONE, EMPTY = "a graph that takes none", "none"


def exported(folder: Path, backbone: str, rows: int) -> Bundle:
    """A bundle whose graph takes so many rows; 0 for one that takes no memory.

    Raises:
        KanoclipError: The export failed.
    """
    target = folder / f"rows{rows}.kanoclip"
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "export", "--backbone", backbone, "--fp32"]
    if backbone != "nano":
        command += ["--weights", "none", "--parity-limit", "1"]
    command += ["--memory-rows", str(rows), "--output", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KanoclipError(f"the export failed: {done.stderr.strip()}")
    return Bundle.open(target)


def some_rows(memory: MemoryTensors, rows: int) -> MemoryTensors:
    """The first rows of a memory."""
    return MemoryTensors(memory.rows[:rows], memory.bias[:rows], memory.centre, memory.fusion)


def measure(
    without: Bundle, taking: Bundle, rows: tuple[int, ...], backends: tuple[str, ...], rounds: int
) -> list[Any]:
    """Medians of one inference, in milliseconds of the processor, and their ratios.

    Args:
        without: Whose graph takes no memory.
        taking: Whose graph does.
        rows: Of the memories.
        backends: On the CPU.
        rounds: How often the cases take turns.

    Returns:
        For each backend and case `milliseconds`, and `ratio`: the median over rounds of its time over that of the graph
        that takes none.
    """
    height, width = taking.manifest.frame_size
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    whole = probe_memory(taking.manifest)
    assert whole is not None  # it was exported with rows
    memories = {EMPTY: None, **{f"{count} rows": some_rows(whole, count) for count in rows}}
    rows_of: list[Any] = []
    for name in backends:
        with ExitStack() as opened:
            plain, fused = (
                opened.enter_context(closing(create_backend(bundle, name, "cpu", threads=1)))
                for bundle in (without, taking)
            )
            cases: dict[str, tuple[Backend, MemoryTensors | None]] = {TAKES_NONE: (plain, None)}
            cases |= {case: (fused, memory) for case, memory in memories.items()}
            times: dict[str, list[float]] = {case: [] for case in cases}
            draw = random.Random(0)
            for number in range(rounds + 2):
                for case in draw.sample(list(cases), len(cases)):
                    backend, memory = cases[case]
                    started = process_time()
                    backend.run(frame, None, memory)
                    if number >= 2:
                        times[case].append((process_time() - started) * 1e3)
        base = np.array(times[TAKES_NONE])
        rows_of += [
            {
                "backend": name,
                "case": case,
                "milliseconds": float(np.median(found)),
                "ratio": float(np.median(np.array(found) / base)),
            }
            for case, found in times.items()
        ]
    return rows_of


@click.command()
@click.option("--backbone", default="nano", show_default=True)
@click.option("--rows", multiple=True, type=click.IntRange(min=1), default=(256, 1024), show_default=True)
@click.option("--backend", "backends", multiple=True, default=("onnxruntime", "openvino"), show_default=True)
@click.option("--rounds", type=click.IntRange(min=3), default=60, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(backbone: str, rows: tuple[int, ...], backends: tuple[str, ...], rounds: int, output: Path | None) -> None:
    """Measure what a reference memory costs."""
    with tempfile.TemporaryDirectory(prefix="kanoclip-memory-") as scratch:
        without, taking = (exported(Path(scratch), backbone, count) for count in (0, max(rows)))
        found = measure(without, taking, rows, backends, rounds)
    for row in found:
        click.echo(f"{row['backend']}, {row['case']}: {row['milliseconds']:.2f} ms, {row['ratio']:.3f}")
    if output is not None:
        write_result(output, {"backbone": backbone, "rounds": rounds, "rows": found})


if __name__ == "__main__":
    main()
