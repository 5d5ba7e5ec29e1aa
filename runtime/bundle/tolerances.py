"""How far a precision may drift: what the export's parity gate allows, and the comparison of engines with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Largest drift that a precision may show.

    Attributes:
        map: Largest absolute difference of a map's pixel, in [0, 1].
        score: Largest absolute difference of a score, in [0, 1].
        auroc: Largest absolute difference of the image AUROC, where labels are known.
        descriptor: Largest 1 - cosine between a patch's descriptors, where the graph gives them.
    """

    map: float
    score: float
    auroc: float
    descriptor: float


BOUNDS = {
    "fp32": Bounds(map=1e-3, score=1e-4, auroc=0.005, descriptor=1e-4),
    "fp16": Bounds(map=2e-2, score=1e-2, auroc=0.005, descriptor=5e-3),
    "bf16": Bounds(map=1e-1, score=5e-2, auroc=0.01, descriptor=2e-2),
    "int8": Bounds(map=1e-1, score=5e-2, auroc=0.01, descriptor=1e-1),
    "int8-cpu": Bounds(map=1e-1, score=5e-2, auroc=0.01, descriptor=1e-1),
    "fp8": Bounds(map=1e-1, score=5e-2, auroc=0.01, descriptor=1e-1),
}
