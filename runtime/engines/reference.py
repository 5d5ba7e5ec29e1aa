"""An engine's answers against plain operators, on the images that travel with a bundle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.tolerances import BOUNDS
from kanoclip.runtime.engines.base import Backend
from kanoclip.runtime.engines.inputs import Floats, Frames, Indices, MemoryTensors, whole_batches
from kanoclip.runtime.errors import BundleError

_OWN_PRECISION = {"openvino-bf16-cpu": "bf16"}
"""Engines that compute in less than the graph's precision: the bounds of their own hold for them."""


@dataclass(frozen=True)
class Answers:
    """An engine's outputs for a bundle's images.

    Attributes:
        backend: Its name, such as `onnxruntime-cuda`.
        maps: Of each batch, float32 [B, H, W]; where the graph takes a memory, then those with `probe_memory` and with
            one that decides alone.
        scores: Of each batch, float32 [B], in the same order.
        milliseconds: Median of a run, after a first one that does not count.
    """

    backend: str
    maps: tuple[Floats, ...]
    scores: tuple[Floats, ...]
    milliseconds: float


@dataclass(frozen=True)
class Comparison:
    """An engine's answers on a bundle's own images against the reference's.

    Attributes:
        backend: What was scored, such as `onnxruntime-cuda`.
        compared: How many were compared.
        map_drift: Largest absolute difference over all maps' pixels; NaN where an answer is.
        score_drift: Largest absolute difference over all scores.
        map_bound: What the export's own gate allows for this precision.
        score_bound: The same for scores.
        milliseconds: Median of a run, after a first one that does not count.
        engine: Where a TensorRT engine is from, in words; None for other backends.
        fused_attention: How many attention blocks of a TensorRT engine run as one kernel; None for other backends.
    """

    backend: str
    compared: int
    map_drift: float
    score_drift: float
    map_bound: float
    score_bound: float
    milliseconds: float
    engine: str | None = None
    fused_attention: int | None = None

    @property
    def agrees(self) -> bool:
        """Whether both drifts keep within their bounds; NaN never does."""
        return self.map_drift <= self.map_bound and self.score_drift <= self.score_bound

    def drifts(self) -> str:
        """Both drifts and their bounds in words."""
        return (
            f"map {self.map_drift:.1e} (bound {self.map_bound:.0e}), "
            f"score {self.score_drift:.1e} (bound {self.score_bound:.0e})"
        )


class Reference:
    """The outputs of plain operators for a bundle's own images; any number of engines can be compared with it.

    The reference is ONNX Runtime on the CPU, on one thread and with every optimisation of the graph turned off: the
    operators one by one as they stand in the file, which no fused or reordered kernel can have got wrong. It is
    computed once, when the first engine's answers are compared.
    """

    def __init__(self, bundle: Bundle, *, alone: bool = False) -> None:
        """Reads the images.

        Args:
            bundle: Whose.
            alone: Compare by a memory that decides alone too, for which a CPU's engine has another graph.

        Raises:
            BundleError: The bundle has no images or no bounds of its own.
        """
        self._bundle = bundle
        self._bounds = _bounds(bundle)
        images, classes = bundle.samples(), len(bundle.manifest.classes)
        self.compared = len(images)
        probe = probe_memory(bundle.manifest)
        self._probes = [] if probe is None else [probe, *([deciding_alone(probe)] if alone else [])]
        self.batches: list[tuple[Frames, Indices | None]] = [
            (frames, indices if classes > 1 else None)
            for frames, indices in whole_batches(images, classes, bundle.manifest.max_batch)
        ]

    def one_run(self) -> tuple[Frames, Indices | None]:
        """What to measure an engine's time with: the first images, or the first alone where the graph takes one."""
        frames, indices = self.batches[0]
        if not self._bundle.manifest.dynamic_batch:
            return frames, indices
        return frames[:1], None if indices is None else indices[:1]

    def run(self, backend: Backend) -> Answers:
        """Runs the images on an engine.

        Raises:
            BackendError: It failed.
        """
        backend.run(*self.batches[0])
        maps, scores, spent = [], [], []
        for frames, indices in self.batches:
            started = perf_counter()
            some_maps, some_scores = backend.run(frames, indices)
            spent.append((perf_counter() - started) * 1e3)
            maps.append(np.array(some_maps))  # an engine may hand out its own buffers
            scores.append(np.array(some_scores))
        for probe in self._probes:
            for frames, indices in self.batches:
                some_maps, some_scores = backend.run(frames, indices, probe)
                maps.append(np.array(some_maps))
                scores.append(np.array(some_scores))
        return Answers(backend.name, tuple(maps), tuple(scores), float(np.median(spent)))

    def compare(self, answers: Answers) -> Comparison:
        """Compares an engine's answers, after computing the reference's where that has not been done.

        Raises:
            BackendError: The reference cannot run this bundle.
        """
        map_bound, score_bound = self._bounds
        if (lower := _OWN_PRECISION.get(answers.backend)) is not None:
            map_bound, score_bound = max(map_bound, BOUNDS[lower].map), max(score_bound, BOUNDS[lower].score)
        return Comparison(
            answers.backend,
            self.compared,
            _drift(answers.maps, self.answers.maps),
            _drift(answers.scores, self.answers.scores),
            map_bound,
            score_bound,
            answers.milliseconds,
        )

    @cached_property
    def answers(self) -> Answers:
        """The reference's own.

        Raises:
            BackendError: It cannot run this bundle.
        """
        from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend

        plain = OnnxRuntimeBackend(self._bundle, "cpu", tensorrt=False, threads=1, optimised=False)
        try:
            return self.run(plain)
        finally:
            plain.close()


def probe_memory(manifest: Manifest) -> MemoryTensors | None:
    """A full memory that is drawn by a seed, to compare engines with; None where the graph takes none.

    Its numbers are moderate: a map that is 0 or 1 everywhere would hide what an engine gets wrong.
    """
    if manifest.memory is None or manifest.descriptor is None:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((manifest.memory.rows + 1, manifest.descriptor.channels)).astype(np.float32)
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    rows, centre = np.ascontiguousarray(unit[1:]), unit[0] / 4
    fusion = np.array([1, 8, 0.8, 0.5, -2, 0, 0, 0], np.float32)
    return MemoryTensors(rows, -(rows @ centre), centre, fusion)


def deciding_alone(memory: MemoryTensors) -> MemoryTensors:
    """The same memory without weight for the zero-shot map."""
    fusion = memory.fusion.copy()
    fusion[3] = 0
    return replace(memory, fusion=fusion)


def _drift(found: Sequence[Floats], expected: Sequence[Floats]) -> float:
    """Largest absolute difference; NaN where something found is not finite."""
    if not all(np.isfinite(one).all() for one in found):
        return math.nan
    return max(float(np.abs(mine - theirs).max()) for mine, theirs in zip(found, expected, strict=True))


def _bounds(bundle: Bundle) -> tuple[float, float]:
    bounds: Any = (bundle.manifest.parity or {}).get("bounds")
    try:
        return float(bounds["map"]), float(bounds["score"])
    except (TypeError, KeyError, ValueError):
        raise BundleError(f"{bundle.root} was exported without a parity report: export it again") from None
