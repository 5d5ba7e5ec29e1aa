"""Where the time of training goes: reading images, the feature cache, and what the steps wait for.

    python -m kanoclip.benchmarks.studies.training_speed --output benchmarks/results/training/training-speed-nano.json
    python -m kanoclip.benchmarks.studies.training_speed --backbone vit-l-14-336

- "reading": images/s through the trainer's own loader without a model, by worker processes: 1080p JPEGs are
  read, decoded and resized.
- "cache": features/s from the cache of the tower named, each file read once from the page cache, and once from
  the disk where the system drops pages when asked (what a disk below a virtual machine keeps is not known).
- "training": `kanoclip-train` with an empty cache, whose first epoch fills it, and without one by workers. `waited` is
  the share of an epoch's time in which the steps wait for images or features.

Weights are seeded: speed is the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from torch.utils.data import DataLoader

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.run_overhead import make_images
from kanoclip.train.data.types import Sample
from kanoclip.train.training.cache import FeatureCache
from kanoclip.train.training.images import EpochOrder, TrainingImage, TrainingSet

EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
MODEL_SIZE = (256, 256)
BATCH = 8


def reading(folder: Path, images: int, workers: int) -> float:
    """Images/s through the loader, the start of its workers included.

    Args:
        folder: Of 1080p JPEGs.
        images: How many of them.
        workers: Processes; 0 reads in this one.
    """
    paths = sorted(folder.glob("*.jpg"))[:images]
    listed = [TrainingImage(Sample(path, False, None, "good", "test"), 0, path.stem, None) for path in paths]
    data = TrainingSet(listed, MODEL_SIZE, None, None)
    order = EpochOrder(len(data), BATCH, seed=0)
    loader = DataLoader(data, batch_sampler=order, collate_fn=data.collate, num_workers=workers)
    started = time.perf_counter()
    count = sum(len(batch.indices) for batch in loader)
    return count / (time.perf_counter() - started)


def cache_rates(root: Path) -> dict[str, Any]:
    """Features/s and MB/s from a cache that a training has filled; None from the disk where pages stay.

    Args:
        root: The cache's folder.
    """
    files = sorted(root.glob("*/*.npy"))
    first = np.load(files[0], mmap_mode="r")
    cache = FeatureCache(root, json.loads((files[0].parent / "key.json").read_text()), first.shape, 1 << 40)

    def rate() -> dict[str, float]:
        started = time.perf_counter()
        for path in files:
            assert cache.load(path.stem) is not None
        seconds = time.perf_counter() - started
        return {
            "pictures_per_s": len(files) / seconds,
            "mb_per_s": len(files) * files[0].stat().st_size / seconds / 1e6,
        }

    rate()
    warm, cold = rate(), None
    if hasattr(os, "posix_fadvise"):
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        cold = rate()
    return {"files": len(files), "bytes_each": files[0].stat().st_size, "from_memory": warm, "from_disk": cold}


def train(arguments: list[str], output: Path) -> list[dict[str, Any]]:
    """Runs `kanoclip-train` and returns its epochs: seconds, share waited, images/s, share from the cache."""
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "train", *arguments, "--output", str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    records: list[dict[str, Any]] = json.loads(output.with_suffix(".json").read_text())["training"]["epochs"]
    return [
        {
            "seconds": record["seconds"],
            "waited": record["waited"] / record["seconds"],
            "pictures_per_s": record["pictures"] / record["seconds"],
            "from_cache": record["from_cache"] / record["pictures"],
        }
        for record in records
    ]


def in_turns(measure: Callable[[int], float], workers: tuple[int, ...], repeat: int) -> dict[str, dict[str, float]]:
    """Median, least and most of a rate by workers, measured in turns."""
    found: dict[int, list[float]] = {count: [] for count in workers}
    for _ in range(repeat):
        for count, rates in found.items():
            rates.append(measure(count))
    return {
        str(count): {"median": float(np.median(rates)), "least": min(rates), "most": max(rates)}
        for count, rates in found.items()
    }


@click.command()
@click.option("--backbone", default="nano", show_default=True)
@click.option("--root", type=click.Path(path_type=Path), default=EXAMPLES, help="MVTec tree. Default: the examples.")
@click.option("--epochs", type=click.IntRange(min=2), default=4, show_default=True)
@click.option(
    "--pictures", "images", type=click.IntRange(min=BATCH), default=96, show_default=True, help="To read, of 1080p."
)
@click.option("--workers", type=click.IntRange(min=0), multiple=True, help="Repeatable. Default: 0, 1, 2, 4.")
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Readings by each of them.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(
    backbone: str, root: Path, epochs: int, images: int, workers: tuple[int, ...], repeat: int, output: Path | None
) -> None:
    """Measure reading, the feature cache and whole epochs of training."""
    workers = workers or (0, 1, 2, 4)
    cv2.setNumThreads(1)  # as in a worker of torch's loader
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "large").mkdir()
        make_images(folder / "large", images)
        read = in_turns(lambda count: reading(folder / "large", images, count), workers, repeat)
        common = ["--dataset", "mvtec", "--root", str(root), "--backbone", backbone, "--weights", "none"]
        filled = ["--cache", str(folder / "cache"), "--epochs", str(epochs)]
        runs = {"cache": train([*common, *filled], folder / "c.safetensors")}
        stored = cache_rates(folder / "cache")
        for count in sorted({0, max(workers)}):
            arguments = [*common, "--no-cache", "--epochs", "2", "--workers", str(count)]
            runs[f"no cache, {count} workers"] = train(arguments, folder / f"{count}.safetensors")
    later = [epoch["seconds"] for epoch in runs["cache"][1:]]
    result = {
        "backbone": backbone,
        "reading_pictures_per_s": {"size": "1920x1080 JPEG", "by_workers": read},
        "cache": stored,
        "training": runs,
        "first_epoch_over_later_ones": [runs["cache"][0]["seconds"] / seconds for seconds in later],
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
