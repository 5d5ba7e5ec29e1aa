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

from kanoclip.export.samples import Sample
from kanoclip.runtime.bundle.tolerances import BOUNDS, Bounds
from kanoclip.runtime.engines.base import Backend
from kanoclip.runtime.engines.inputs import Floats, Frames, MemoryTensors, whole_batches
from kanoclip.runtime.metrics import image_auroc
from kanoclip.train.model.kanoclip import KAnoCLIP, to_pixels
from kanoclip.train.model.memory import MemoryFusion


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
