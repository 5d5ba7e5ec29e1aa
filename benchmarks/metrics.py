"""Times the pixel metrics and checks them against scikit-learn.

python -m kanoclip.benchmarks.metrics
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from time import perf_counter

import click
import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.benchmarks.results import write_result
from kanoclip.runtime.metrics import PixelAccumulator, pixel_auroc, pixel_average_precision


def picture(rng: np.random.Generator, size: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """A mask of a few blobs (about 4 % of the pixels) and a smooth map that rises there, in steps of 1/4096."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), size / 25)
    mask = noise > np.quantile(noise, 0.96)
    other = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), size / 50)
    heat = 1 / (1 + np.exp(-(3 * noise / noise.std() + 3 * other / other.std() - 6)))
    return mask, (np.round(heat * 4096) / 4096).astype(np.float32)


def peak_mib() -> float:
    """Largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@click.command()
@click.option("--maps", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of maps.")
@click.option("--size", type=click.IntRange(min=8), default=336, show_default=True, help="Side of a map in pixels.")
@click.option(
    "--checked", type=click.IntRange(min=1), default=20, show_default=True, help="Maps given to scikit-learn."
)
@click.option("--memory", type=click.IntRange(min=0), default=512, show_default=True, help="MiB of values in memory.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(maps: int, size: int, checked: int, memory: int, output: Path | None) -> None:
    """Accumulates maps one by one, as an evaluation does, and asks for all metrics."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    stock = [picture(rng, size) for _ in range(min(maps, 50))]
    before = peak_mib()
    seconds = 0.0
    with PixelAccumulator(memory=memory << 20) as pixels:
        for i in range(maps):
            mask, heat = stock[i % len(stock)]
            mask, heat = np.roll(mask, i, axis=1), np.roll(heat, i, axis=1)
            started = perf_counter()
            pixels.add(mask, heat)
            seconds += perf_counter() - started
        started = perf_counter()
        found = pixels.result()
        seconds += perf_counter() - started
    peak = peak_mib()
    masks, heats = np.stack([m for m, _ in stock[:checked]]), np.stack([h for _, h in stock[:checked]])
    started = perf_counter()
    theirs = roc_auc_score(masks.ravel(), heats.ravel()), average_precision_score(masks.ravel(), heats.ravel())
    their_seconds = (perf_counter() - started) * maps / len(masks)
    ours = pixel_auroc(masks, heats), pixel_average_precision(masks, heats)
    result = {
        "maps": maps,
        "size": size,
        "seconds": seconds,
        "peak_mib_above_start": peak - before,
        "peak_mib": peak,
        "metrics": {name: getattr(found, name) for name in found.__dataclass_fields__},
        "difference_from_scikit_learn": max(abs(a - b) for a, b in zip(ours, theirs, strict=True)),
        "scikit_learn_seconds_for_auroc_and_ap_scaled": their_seconds,
    }
    for name, value in result.items():
        click.echo(f"{name}: {value}")
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
