"""What bundles take of an earlier one's time, engine by engine, in turns: nano against the nano of 0.1.0.

    git archive 6304e4c runtime/bundles/nano.kanoclip | tar -x -C /tmp --strip-components=2   # the nano of 0.1.0
    python -m kanoclip.benchmarks.studies.graphs.bundles /tmp/nano.kanoclip SHIPPED/nano.kanoclip \
        SHIPPED/nano-int8.kanoclip --threads 2 --output benchmarks/results/graphs/bundles-nano-2-threads.json

A turn is some images of one bundle, as a stream has them; each is scored without a memory. Run it on a quiet machine:
it is the clock that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.turns import in_turns
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import create_backend

TURN = 6
"""Images of a turn."""
ENGINES = ("onnxruntime", "openvino")


def measure(bundles: list[Bundle], engines: tuple[str, ...], threads: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds an image and, round by round, what it is of each bundle before it.

    Args:
        bundles: Of one class; the first is what the others are compared with.
        engines: On the CPU.
        threads: Of an engine.
        rounds: Turns of each, in another order each round.

    Returns:
        For each engine and bundle `milliseconds`, the median, and `of`: the median ratio to each bundle before it, in
        their order.
    """
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for engine in engines:
        with ExitStack() as opened:
            runs: dict[int, Callable[[], object]] = {}
            for number, bundle in enumerate(bundles):
                backend = opened.enter_context(closing(create_backend(bundle, engine, "cpu", threads)))
                frame = rng.integers(0, 256, (1, *bundle.manifest.frame_size, 3), np.uint8)
                runs[number] = partial(backend.run, frame, None)
            found = np.array(list(in_turns(runs, rounds, TURN).values()))
        rows += [
            {
                "engine": engine,
                "bundle": bundle.manifest.name,
                "made": bundle.manifest.created,
                "milliseconds": float(np.median(found[number])),
                "of": [float(np.median(found[number] / found[before])) for before in range(number)],
            }
            for number, bundle in enumerate(bundles)
        ]
    return rows


@click.command()
@click.argument("places", metavar="BUNDLE BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--engine", "engines", multiple=True, default=ENGINES, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(min=3), default=30, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(places: tuple[Path, ...], engines: tuple[str, ...], threads: int, rounds: int, output: Path | None) -> None:
    """Compare bundles with the first of them."""
    if len(places) < 2:
        raise click.UsageError("name two bundles or more: the first is what the others are compared with")
    rows = measure([Bundle.open(place) for place in places], engines, threads, rounds)
    for row in rows:
        of = ", ".join(f"{ratio:.3f}" for ratio in row["of"])
        click.echo(f"{row['engine']}, {row['bundle']}: {row['milliseconds']:.2f} ms" + (f", {of}" if of else ""))
    if output is not None:
        write_result(output, {"threads": threads, "rounds": rounds, "turn": TURN, "rows": rows})


if __name__ == "__main__":
    main()
