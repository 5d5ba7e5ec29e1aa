"""A reference memory: descriptors of good frames, and how the distance to them becomes a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.signature import FUSION_NUMBERS
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.engines.inputs import MemoryTensors

Halves = npt.NDArray[np.float16]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
LEAST_LENGTH = 1e-6
"""A descriptor that is the centre itself has no direction: it is divided by this rather than by zero."""


@dataclass(frozen=True)
class Fusion:
    """How a distance map d and the zero-shot map m become one map.

    logit = gain * (d - offset) + zero_gain * (log(m / (1 - m)) - zero_offset) + shift, and the map is its sigmoid.

    Attributes:
        gain: Of the distance.
        offset: The distance that good frames have on average.
        zero_gain: Of the zero-shot logit.
        zero_offset: The zero-shot logit that good frames have on average.
        shift: The logit where both are average.
    """

    gain: float
    offset: float
    zero_gain: float
    zero_offset: float
    shift: float

    def numbers(self) -> Floats:
        """As the graph takes them, float32 [FUSION_NUMBERS]; the first says that there is a memory."""
        values = [1.0, self.gain, self.offset, self.zero_gain, self.zero_offset, self.shift]
        return np.array(values + [0.0] * (FUSION_NUMBERS - len(values)), np.float32)

    @classmethod
    def from_numbers(cls, numbers: Floats) -> Fusion:
        """Of what `numbers` returned."""
        return cls(*(float(number) for number in numbers[1 : 1 + len(fields(cls))]))


class Label(Enum):
    """What a person says of a frame."""

    FINE = "fine"
    BAD = "bad"


@dataclass(frozen=True)
class Correction:
    """A frame that a person has labelled, which the class's thresholds go by.

    Attributes:
        label: What it is.
        name: The file or frame that it was.
        sha256: Of what was scored: the image at the graph's size.
        labelled_at: ISO-8601 time in UTC.
        before: Its score when it was labelled, in [0, 1].
        threshold: The threshold at that time.
        score: Its score by the memory that this correction lies in, in [0, 1].
        reference: Number of the reference that it became; None for none.
        image: What was scored, as PNG; empty once there are too many, and then thresholds do not go by it.
        size: (height, width) of the original frame.
    """

    label: Label
    name: str
    sha256: str
    labelled_at: str
    before: float
    threshold: float
    score: float
    reference: int | None
    image: bytes
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class ReferenceMemory:
    """What is remembered of a class's good frames, the references.

    Examples:
        >>> import numpy as np
        >>> rows = np.eye(3, dtype=np.float16)
        >>> memory = ReferenceMemory(
        ...     rows=rows,
        ...     image_of=np.zeros(3, np.int32),
        ...     centre=np.zeros(3, np.float32),
        ...     fusion=Fusion(gain=10, offset=0.2, zero_gain=0, zero_offset=0, shift=-2),
        ...     descriptor_sha256="0" * 64,
        ...     names=("good.png",),
        ...     loo_scores=np.array([0.4], np.float32),
        ...     loo_peaks=np.array([0.4], np.float32),
        ...     created="2026-01-02T03:04:05+00:00",
        ... )
        >>> memory.tensors().rows.shape, memory.tensors() is memory.tensors()
        ((3, 3), True)

    Attributes:
        rows: Descriptors as the graph gives them, unit vectors, float16 [m, D].
        image_of: Which reference each row is of, int32 [m].
        centre: What is subtracted from rows and descriptors before they are compared, float32 [D].
        fusion: How a distance becomes a map.
        descriptor_sha256: The manifest's `descriptor.sha256` of the graph that the rows come from.
        names: Of the references: the files or frames that they were, n of them.
        loo_scores: Each reference's score by a memory without it and its repeats, float32 [n], in [0, 1].
        loo_peaks: The largest map value in the same way, float32 [n].
        created: ISO-8601 time in UTC.
        tiles: How the references were cut; None for whole frames.
        before: The class's thresholds before this memory was put into a bundle, to go back to; None until then.
        note: How it was made, in one line.
        corrections: Frames that a person has labelled since, oldest first.
        repeats: Which references show what another one shows too: see `repeats.groups_of`. Of those that show the same
            one is not listed here.
    """

    rows: Halves
    image_of: Integers
    centre: Floats
    fusion: Fusion
    descriptor_sha256: str
    names: tuple[str, ...]
    loo_scores: Floats
    loo_peaks: Floats
    created: str
    tiles: TileGrid | None = None
    before: Thresholds | None = None
    note: str = ""
    corrections: tuple[Correction, ...] = ()
    repeats: tuple[int, ...] = ()

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which references' values out of sample stand for good frames to come, bool [n].

        Not repeats, and not those that were added for being called anomalous: these were chosen by their score, and
        the memory knows them by now.
        """
        found = np.ones(len(self.names), bool)
        found[list(self.repeats)] = False
        found[[one.reference for one in self.corrections if one.reference is not None]] = False
        return found

    @property
    def different(self) -> int:
        """How many references show something of their own: those that show the same are one."""
        return len(self.names) - len(self.repeats)

    def corrected(self, label: Label) -> Sequence[Correction]:
        """The frames of a label that thresholds go by."""
        return [one for one in self.corrections if one.label is label and one.image]

    def tensors(self) -> MemoryTensors:
        """As engines take it; always the same object, by which they know it again."""
        return self._tensors

    @cached_property
    def _tensors(self) -> MemoryTensors:
        return make_tensors(self.rows, self.centre, self.fusion)


def centred(descriptors: npt.NDArray[np.floating], centre: Floats) -> Floats:
    """Unit vectors less the centre, and unit vectors again: [..., D] -> float32 [..., D]."""
    moved = descriptors.astype(np.float32) - centre
    # einsum: `linalg.norm` makes two more arrays of the same size.
    lengths = np.sqrt(np.einsum("...d,...d->...", moved, moved))
    moved /= np.maximum(lengths, LEAST_LENGTH)[..., None]
    return moved


def make_tensors(rows: Halves, centre: Floats, fusion: Fusion) -> MemoryTensors:
    """The graph's inputs for raw rows float16 [m, D], a centre float32 [D] and a fusion."""
    unit = centred(rows, centre)
    return MemoryTensors(unit, -(unit @ centre), centre, fusion.numbers())
