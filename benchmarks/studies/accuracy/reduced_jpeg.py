"""What `kanoclip-run --reduced-jpeg` saves and changes: decoding time, and drift of scores, maps and AUROC.

    python -m kanoclip.benchmarks.studies.accuracy.reduced_jpeg --root DATA --output reduced-jpeg.json

Real labelled images are seldom large enough, so each is enlarged to four times the model's size with sensor noise
and saved as JPEG (quality 90, chroma halved), as a camera of that resolution would. Times are the reading thread's
processor time, for a noisy photograph at usual sizes.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.streams.run_overhead import example_photographs
from kanoclip.runtime.bundle.bundle import find_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics import image_auroc
from kanoclip.runtime.sources.files.images import read_image, read_reduced
from kanoclip.runtime.types import Image

SIZES = ((1280, 720), (1920, 1080), (2592, 1944), (4000, 3000))
ENLARGED = 4


def save_large(path: Path, image: Image, size: tuple[int, int], rng: np.random.Generator) -> None:
    """Saves an image enlarged to (width, height), with noise."""
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(large + rng.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])


def both(path: Path, model: tuple[int, int]) -> tuple[Image, Image, tuple[int, int] | None]:
    """An image in full and reduced, and the whole one's size.

    Raises:
        KanoclipError: It cannot be read.
    """
    full, reduced = read_image(path), read_reduced(path, *model)
    if isinstance(full, str) or isinstance(reduced, str):
        raise KanoclipError(f"{path} cannot be read")
    return full, *reduced


def milliseconds(size: tuple[int, int], model: tuple[int, int], repeat: int) -> dict[str, float]:
    """Processor time of reading and resizing one image of (width, height), in full and reduced."""
    spent: dict[str, list[float]] = {"full": [], "reduced": []}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "a.jpg"
        save_large(
            path, np.asarray(cv2.imread(str(example_photographs()[0])), np.uint8), size, np.random.default_rng(0)
        )
        for _ in range(repeat):
            for name, times in spent.items():
                started = time.thread_time()
                read = read_image(path) if name == "full" else read_reduced(path, *model)
                assert not isinstance(read, str)
                resize(read if isinstance(read, np.ndarray) else read[0], *model)
                times.append((time.thread_time() - started) * 1e3)
    return {name: float(np.median(times)) for name, times in spent.items()}


def drift(detector: Detector, category: Path, limit: int) -> dict[str, Any]:
    """Scores a category's images both ways.

    Args:
        detector: By which.
        category: Folder with `test/good` and `test/DEFECT`, as MVTec-AD has them.
        limit: Most images; a random choice.
    """
    rng = np.random.default_rng(0)
    paths = sorted((category / "test").rglob("*.jpg"))
    paths = [paths[i] for i in sorted(rng.permutation(len(paths))[:limit])]
    scores: list[tuple[float, float]] = []
    maps, labels = 0.0, []
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "a.jpg"
        for path in paths:
            image = np.asarray(cv2.imread(str(path)), np.uint8)
            scale = max(ENLARGED * model / side for model, side in zip(detector.frame_size, image.shape, strict=False))
            height, width = (int(np.ceil(side * scale)) for side in image.shape[:2])
            save_large(large, image, (width, height), rng)
            full, reduced, size = both(large, detector.frame_size)
            prepared = [detector.prepare(full), detector.prepare(reduced, None, size)]
            one, other = (detector.infer([frame])[0] for frame in prepared)
            scores.append((one.score, other.score))
            maps = max(maps, float(np.abs(one.map - other.map).max()))
            labels.append(path.parent.name != "good")
    found = np.array(scores)
    apart = np.abs(found[:, 0] - found[:, 1])
    mixed = len(set(labels)) == 2
    return {
        "pictures": len(paths),
        "score": {"mean": float(apart.mean()), "most": float(apart.max())},
        "map": {"most": maps},
        "auroc": [image_auroc(labels, found[:, column]) for column in (0, 1)] if mixed else None,
    }


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), help="MVTec tree. Default: the examples.")
@click.option("--bundle", metavar="PATH", help="Default: the shipped one.")
@click.option("--limit", default=100, show_default=True, help="Most images of a category.")
@click.option("--repeat", default=9, show_default=True, help="Readings of each size.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(root: Path | None, bundle: str | None, limit: int, repeat: int, output: Path | None) -> None:
    """Measure decoding at a smaller scale against decoding in full."""
    cv2.setNumThreads(1)
    tree = root or example_photographs()[0].parents[3]
    categories = [folder for folder in sorted(tree.iterdir()) if (folder / "test").is_dir()]
    with Detector.load(find_bundle(bundle, Path("/")), backend="onnxruntime", device="cpu") as detector:
        model = detector.frame_size
        result = {
            "bundle": detector.bundle.manifest.name,
            "milliseconds": {f"{size[0]}x{size[1]}": milliseconds(size, model, repeat) for size in SIZES},
            "drift": {category.name: drift(detector, category, limit) for category in categories},
        }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
