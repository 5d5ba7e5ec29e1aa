"""The parity gate: the graph that ships against the checkpoint in torch, on real images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.bundle.tolerances import BOUNDS, Bounds
from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.detect.tiles import WHOLE, Tiling, auto_grid
from kanoclip.runtime.engines.base import Backend
from kanoclip.runtime.engines.inputs import Floats, Frames, MemoryTensors, whole_batches
from kanoclip.runtime.errors import ExportError, FrameError
from kanoclip.runtime.metrics import image_auroc
from kanoclip.runtime.sources.files.headers.header import image_size
from kanoclip.runtime.sources.files.images import ImageSource, read_image
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.types import Image
from kanoclip.train.model.kanoclip import KAnoCLIP, to_pixels
from kanoclip.train.model.memory import MemoryFusion

NORMAL_FOLDERS = ("good", "normal")
ASPECTS_APART = 1.1
"""Largest ratio of two images' aspects: one grid suits both."""


@dataclass(frozen=True)
class Sample:
    """One image of the gate, or a tile of one.

    Attributes:
        path: Where the image is.
        frame: uint8 [h, w, 3], BGR, of the size that the graph takes.
        anomalous: The image's label, None when its folder does not say.
    """

    path: Path
    frame: Image
    anomalous: bool | None


@dataclass(frozen=True)
class ParityReport:
    """What the gate measured; written into the manifest.

    Attributes:
        precision: Of the graph.
        engine: What ran the graph.
        pictures: How many images were compared, or tiles of images.
        map_drift: Largest absolute difference over all maps' pixels.
        map_drift_mean: Mean absolute difference.
        score_drift: Largest absolute difference over all scores.
        auroc_torch: Image AUROC in torch, None without labels of both kinds.
        auroc_graph: Image AUROC of the graph.
        bounds: What was allowed.
        descriptor_drift: Largest 1 - cosine between a patch's descriptors in torch and in the graph.
        memory_drift: Largest absolute difference of map or score with a reference memory, from what torch makes of the
            graph's own descriptors and zero-shot answers; None for a graph that takes none.
    """

    precision: str
    engine: str
    pictures: int
    map_drift: float
    map_drift_mean: float
    score_drift: float
    auroc_torch: float | None
    auroc_graph: float | None
    bounds: Bounds
    descriptor_drift: float = 0.0
    memory_drift: float | None = None

    def failures(self) -> list[str]:
        """What passes its bound, in words; empty when the graph may ship. NaN never passes."""
        checks = [
            ("map", self.map_drift, self.bounds.map),
            ("score", self.score_drift, self.bounds.score),
            ("descriptor", self.descriptor_drift, self.bounds.descriptor),
        ]
        if self.memory_drift is not None:
            checks.append(("memory", self.memory_drift, self.bounds.map))
        if self.auroc_torch is not None and self.auroc_graph is not None:
            checks.append(("AUROC", abs(self.auroc_torch - self.auroc_graph), self.bounds.auroc))
        return [f"{name} drift {value:.2e} > {bound:.0e}" for name, value, bound in checks if not value <= bound]

    def as_json(self) -> dict[str, Any]:
        """For the manifest and `--json`."""
        return asdict(self)


def load_samples(
    source: Path,
    size: tuple[int, int],
    limit: int,
    flag: str = "--parity-images",
    tiles: TileGrid = WHOLE,
    reading: Reading = AS_IT_IS,
) -> list[Sample]:
    """Reads images for the gate or for calibration, spread evenly over a folder.

    An image in a folder called `good` or `normal` is normal; beside such a folder, all others are anomalous.

    Args:
        source: A folder or an image.
        size: (height, width) that the graph takes.
        limit: Most images to use.
        flag: The command line's name for the source, for messages.
        tiles: How an image is cut: each of its tiles is a sample.
        reading: How an image is read.

    Raises:
        SourceError: There is no image.
        ExportError: An image cannot be read, or is too small for the tiles: a gate is not the place to skip one.
    """
    paths, tiling = sample_paths(source, limit, flag), Tiling(tiles, size)
    labelled = any(path.parent.name in NORMAL_FOLDERS for path in paths)
    samples = []
    for path in paths:
        image = read_sample(path, flag, reading)
        try:
            tiling.check_frame(*image.shape[:2])
        except FrameError as error:
            raise ExportError(f"{path}: {error}") from error
        anomalous = path.parent.name not in NORMAL_FOLDERS if labelled else None
        samples += [Sample(path, tile, anomalous) for tile in tiling.cut(resize(image, *tiling.canvas))]
    return samples


def sample_paths(source: Path, limit: int, flag: str) -> list[Path]:
    """The images that `load_samples` reads.

    Raises:
        SourceError: There is no image.
        ExportError: There is no such folder or file.
    """
    if not source.exists():
        raise ExportError(f"no images at {source}: name a folder or a file with {flag}")
    paths = (ImageSource.from_folder(source) if source.is_dir() else ImageSource.from_file(source)).paths
    step = max(len(paths) / limit, 1.0)
    return [paths[int(i * step)] for i in range(min(limit, len(paths)))]


def read_sample(path: Path, flag: str, reading: Reading = AS_IT_IS) -> Image:
    """One image, uint8 [H, W, 3], BGR.

    Raises:
        ExportError: It cannot be read.
    """
    image = read_image(path, reading)
    if isinstance(image, str):
        raise ExportError(f"cannot read {path} ({image}): name other images with {flag}")
    return image


def choose_grid(
    source: Path, limit: int, size: tuple[int, int], overlap: float, flag: str, reading: Reading = AS_IT_IS
) -> TileGrid | None:
    """Tiles by the aspect of the images, and by the size of the smallest.

    Args:
        source: A folder or an image.
        limit: Most images to look at, spread evenly.
        size: (height, width) of the model.
        overlap: Share of a tile's side that it has in common with its neighbour.
        flag: The command line's name for the source, for messages.
        reading: How an image is read whose header does not tell its size.

    Returns:
        The grid; None where the images are best seen as a whole.

    Raises:
        SourceError: There is no image.
        ExportError: An image cannot be read, or two are of different shapes.
    """
    sizes = {path: _size(path, flag, reading) for path in sample_paths(source, limit, flag)}
    aspects = {path: height / width for path, (height, width) in sizes.items()}
    flattest, tallest = min(aspects, key=aspects.__getitem__), max(aspects, key=aspects.__getitem__)
    if aspects[tallest] > ASPECTS_APART * aspects[flattest]:
        (one_height, one_width), (height, width) = sizes[flattest], sizes[tallest]
        raise ExportError(
            f"no tiles suit both {flattest} ({one_width}x{one_height} pixels) and {tallest} ({width}x{height}): name "
            f"images of one shape with {flag}, or the grid, such as --tiles 3x1"
        )
    smallest = min(sizes.values(), key=lambda one: one[0] * one[1])
    grid = auto_grid(*smallest, size, overlap)
    return grid if grid.count > 1 else None


def _size(path: Path, flag: str, reading: Reading) -> tuple[int, int]:
    """(height, width) of an image, from its header where that tells it."""
    found = image_size(path)
    if found is None:
        height, width, _ = read_sample(path, flag, reading).shape
        found = height, width
    return found


@torch.no_grad()
def measure_parity(
    model: KAnoCLIP,
    classes: Sequence[str],
    backend: Backend,
    samples: Sequence[Sample],
    precision: str,
    engine: str,
    batch: int,
    done: Callable[[int, int], None],
    resized: Callable[[Frames], Tensor] = torch.from_numpy,
    memory_rows: int = 0,
) -> ParityReport:
    """Runs the float32 checkpoint in torch and the graph on the same frames.

    Every class is used at least once: image i is scored as class i modulo their number.

    Args:
        model: The checkpoint's model, float32.
        classes: Baked classes, in the graph's order.
        backend: Runs the graph.
        samples: Images of the size that the graph takes, at least one.
        precision: Of the graph.
        engine: Name of what runs the graph, for the report.
        batch: Frames per run; images are repeated to fill the last one.
        done: Called with (images done, images in all).
        resized: From the graph's frames to the model's, BGR in 0 to 255, where the graph resizes.
        memory_rows: Most rows of a reference memory; 0 for a graph that takes none.
    """
    text = model.text_features(classes)
    batches = list(whole_batches([sample.frame for sample in samples], len(classes), batch))
    map_drifts, map_means, score_drifts, descriptor_drifts = [], [], [], []
    scores: dict[Path, tuple[bool | None, float, float]] = {}  # an image's score is the largest of its tiles'
    memory_drifts: list[float] = []
    memory = _memory_of(backend, batches[0][0], memory_rows) if memory_rows else None
    for number, (frames, index) in enumerate(batches):
        maps, graph_scores = backend.run(frames, index if len(classes) > 1 else None)
        pixels = to_pixels(resized(frames), model.tower.normalisation)
        output = model(pixels, text[torch.from_numpy(index)])
        difference = np.abs(maps - output.map.numpy())
        map_drifts.append(float(difference.max()))
        map_means.append(float(difference.mean()))
        descriptors = backend.describe(frames)
        if memory is not None:
            found = backend.run(frames, index if len(classes) > 1 else None, memory)
            memory_drifts.append(_memory_drift(model, descriptors, (maps, graph_scores), memory, found))
        cosines = (descriptors * model.tower.describe(pixels).numpy()).sum(axis=-1)
        descriptor_drifts.append(float((1 - cosines).max()))
        torch_scores = output.score.numpy()
        score_drifts.append(float(np.abs(graph_scores - torch_scores).max()))
        for i, (torch_score, graph_score) in enumerate(zip(torch_scores, graph_scores, strict=True), number * batch):
            if i < len(samples):
                one = samples[i]
                _, *before = scores.get(one.path, (None, -np.inf, -np.inf))
                # np.maximum, unlike max(), keeps a NaN.
                largest = np.maximum(before, (torch_score, graph_score))
                scores[one.path] = (one.anomalous, float(largest[0]), float(largest[1]))
        done((number + 1) * batch, len(batches) * batch)
    labels = [label for label, _, _ in scores.values()]
    aurocs: tuple[float | None, float | None] = (None, None)
    if True in labels and False in labels:
        known = np.array([bool(label) for label in labels])
        aurocs = (_auroc(known, [s for _, s, _ in scores.values()]), _auroc(known, [s for _, _, s in scores.values()]))
    return ParityReport(
        precision,
        engine,
        len(samples),
        # np.max, unlike max(), keeps a NaN wherever it stands.
        float(np.max(map_drifts)),
        float(np.mean(map_means)),
        float(np.max(score_drifts)),
        *aurocs,
        BOUNDS[precision],
        float(np.max(descriptor_drifts)),
        float(np.max(memory_drifts)) if memory_drifts else None,
    )


def _memory_of(backend: Backend, frames: Frames, rows: int) -> MemoryTensors:
    """A reference memory of the first image's descriptors, as many as go in, with a centre and moderate gains."""
    found = backend.describe(frames)[0][:rows]
    centre = (found.mean(axis=0) / 2).astype(np.float32)
    centred = found - centre
    unit = np.ascontiguousarray(centred / np.linalg.norm(centred, axis=1, keepdims=True), np.float32)
    fusion = np.array([1.0, 8.0, 0.2, 0.5, 0.0, -1.0, 0.0, 0.0], np.float32)
    return MemoryTensors(unit, -(unit @ centre), centre, fusion)


def _memory_drift(
    model: KAnoCLIP,
    descriptors: Floats,
    zero: tuple[Floats, Floats],
    memory: MemoryTensors,
    found: tuple[Floats, Floats],
) -> float:
    tower = model.tower
    fuse = MemoryFusion(tower.descriptor_grid, tower.descriptor_channels, model.config.image_size)
    expected = fuse(*(torch.from_numpy(part) for part in (descriptors, *zero, *memory.inputs().values())))
    return max(float(np.abs(mine - theirs.numpy()).max()) for mine, theirs in zip(found, expected, strict=True))


def _auroc(labels: npt.NDArray[np.bool_], scores: list[float]) -> float:
    """NaN for scores that hold NaN: such a graph fails by its drift, which names the error better."""
    return float("nan") if np.isnan(scores).any() else image_auroc(labels, np.array(scores))
