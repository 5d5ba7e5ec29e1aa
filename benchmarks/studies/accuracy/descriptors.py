"""What a bundle's descriptors are worth: a few good images as reference, plain nearest neighbour, nothing learned.

    python -m kanoclip.benchmarks.studies.accuracy.descriptors --root DATA --shots 1 --shots 4 --output descriptors.json

A patch's distance is 1 - cosine to the nearest row of the references. References are drawn anew for each draw and are
never among the images that are measured. The table has the mean over the draws, and their deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.metrics import image_auroc
from kanoclip.runtime.sources.files.images import read_image
from kanoclip.runtime.types import FloatMap, Image
from kanoclip.train.data.masks import evaluation_mask, read_mask
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.data.types import Category, Sample

_LEFT = 2
"""Good images that stay to be measured where a category has few."""
_BATCH = 16


@dataclass(frozen=True)
class Described:
    """A category's images, as their descriptors.

    Attributes:
        descriptors: float16 [N, P, D], L2-normalised.
        anomalous: bool [N].
        masks: bool [N, h, w] at the model's size, None where the category has none.
    """

    descriptors: npt.NDArray[np.float16]
    anomalous: npt.NDArray[np.bool_]
    masks: npt.NDArray[np.bool_] | None


def describe(detector: Detector, category: Category) -> Described:
    """Runs a category through the bundle's graph.

    Raises:
        KanoclipError: An image or a mask cannot be read.
    """
    size = detector.bundle.manifest.model.image_size
    descriptors, masks = [], []
    for start in range(0, len(category.samples), _BATCH):
        images = []
        for sample in category.samples[start : start + _BATCH]:
            image = read_image(sample.image)
            if isinstance(image, str):
                raise click.ClickException(f"cannot read {sample.image} ({image}): copy it again")
            images.append(image)
            masks.append(_mask(sample, image, size))
        descriptors.append(detector.describe(images).astype(np.float16))
    known = [mask for mask in masks if mask is not None]
    return Described(
        np.concatenate(descriptors),
        np.array([sample.anomalous for sample in category.samples]),
        np.stack(known) if len(known) == len(masks) else None,
    )


def _mask(sample: Sample, image: Image, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    if not sample.anomalous:
        return np.zeros(size, bool)
    if sample.mask is None:
        return None
    return evaluation_mask(read_mask(sample.mask, image.shape[:2]), *size)


def distances(images: npt.NDArray[np.float16], memory: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """1 - cosine to the nearest row of a memory: [N, P, D] and [M, D] -> float32 [N, P]."""
    rows = np.ascontiguousarray(memory.astype(np.float32).T)
    return np.stack([1 - (image.astype(np.float32) @ rows).max(axis=1) for image in images])


def maps_of(patches: npt.NDArray[np.float32], grid: tuple[int, int], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Distances [N, P] -> maps [N, h, w], bilinear, not smoothed."""

    def enlarged(values: FloatMap) -> FloatMap:
        stretched = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(stretched, np.float32)

    return np.stack([enlarged(values.reshape(grid)) for values in patches])


def measure(found: Described, grid: tuple[int, int], size: tuple[int, int], shots: int, draw: int) -> list[float]:
    """Image and pixel AUROC with one draw of references, in percent; NaN where there are no masks."""
    rng = np.random.default_rng(draw)
    good = np.flatnonzero(~found.anomalous)
    references = rng.choice(good, min(shots, len(good) - _LEFT), replace=False)
    rest = np.setdiff1d(np.arange(len(found.anomalous)), references)
    memory = found.descriptors[references].reshape(-1, found.descriptors.shape[-1])
    maps = maps_of(distances(found.descriptors[rest], memory), grid, size)
    image = image_auroc(found.anomalous[rest], maps.max(axis=(1, 2)).astype(np.float64))
    pixel = float("nan")
    if found.masks is not None:
        pixel = image_auroc(found.masks[rest].ravel(), maps.ravel().astype(np.float64))
    return [100 * image, 100 * pixel]


@click.command()
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="MVTec tree.")
@click.option("--bundle", type=click.Path(exists=True, path_type=Path), help="Default: the shipped one.")
@click.option("--shots", multiple=True, type=click.IntRange(min=1), default=(1, 4), show_default=True)
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(root: Path, bundle: Path | None, shots: tuple[int, ...], draws: int, output: Path | None) -> None:
    """Measure a bundle's descriptors with a few good images as reference."""
    result: dict[str, dict[str, dict[str, list[float]]]] = {}
    with Detector.load(bundle or shipped_bundle(), backend="onnxruntime", device="cpu") as detector:
        manifest = detector.bundle.manifest
        if manifest.descriptor is None:
            raise click.ClickException(f"{detector.bundle.root} has no descriptors: export it again")
        for category in open_dataset("mvtec", root).categories:
            found = describe(detector, category)
            for count in shots:
                drawn = [
                    measure(found, manifest.descriptor.grid, manifest.model.image_size, count, draw)
                    for draw in range(draws)
                ]
                values = np.array(drawn)
                row = {"mean": values.mean(0).tolist(), "std": values.std(0).tolist()}
                result.setdefault(str(count), {})[category.name] = row
                click.echo(f"{count} references, {category.name}: " + _shown(row))
    for count, rows in result.items():
        columns = zip(*(row["mean"] for row in rows.values()), strict=True)
        known = [[value for value in column if not np.isnan(value)] for column in columns]
        means = [float(np.mean(values)) if values else float("nan") for values in known]
        rows["mean"] = {"mean": means, "std": []}
        click.echo(f"{count} references, mean: {means[0]:.1f} / {means[1]:.1f}")
    if output is not None:
        write_result(output, {"draws": draws, "shots": result})


def _shown(row: dict[str, list[float]]) -> str:
    image, pixel = zip(row["mean"], row["std"], strict=True)
    return " / ".join(f"{mean:.1f} +- {std:.1f}" for mean, std in (image, pixel) if not np.isnan(mean))


if __name__ == "__main__":
    main()
