"""What the detector asks of an inference engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.signature import (
    DESCRIPTOR,
    FUSION_NUMBERS,
    MEMORY_INPUTS,
    ROWS,
    DescriptorInfo,
    TensorSpec,
)
from kanoclip.runtime.errors import BackendError

Frames = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NEVER_WINS = -1e4
"""Bias of a row that is none: no cosine makes up for it, and fp16 holds it."""
FETCHED = ("map", "score")
"""The outputs that `Backend.run` fetches: a descriptor is larger than both, and stays where it was computed."""
Answers = tuple[Floats, Floats]
"""Maps float32 [B, H, W] and scores float32 [B], both in [0, 1]."""
Report = Callable[[str, float], None]
"""Called with a long step's name and the share of it that is done, 0 to 1."""


@dataclass(frozen=True, eq=False)
class MemoryTensors:
    """A reference memory as the graph takes it; the same object from run to run, by which an engine knows it again.

    Attributes:
        rows: Unit vectors, the references' descriptors less the centre, float32 [R, D].
        bias: What is added to each row's product, float32 [R].
        centre: What is subtracted from a descriptor, float32 [D].
        fusion: How distances become logits, float32 [FUSION_NUMBERS]; the first number is 0 for no memory at all.
    """

    rows: Floats
    bias: Floats
    centre: Floats
    fusion: Floats

    @classmethod
    def empty(cls, channels: int) -> MemoryTensors:
        """No memory, for descriptors of so many channels: the graph's answers are the zero-shot ones, bit for bit."""
        return cls(
            np.zeros((1, channels), np.float32),
            np.full(1, NEVER_WINS, np.float32),
            np.zeros(channels, np.float32),
            np.zeros(FUSION_NUMBERS, np.float32),
        )

    def padded(self, rows: int) -> MemoryTensors:
        """The same with rows that never win, up to so many: for an engine whose shapes are fixed."""
        missing = rows - len(self.rows)
        return MemoryTensors(
            np.pad(self.rows, ((0, missing), (0, 0))),
            np.pad(self.bias, (0, missing), constant_values=NEVER_WINS),
            self.centre,
            self.fusion,
        )

    def inputs(self) -> dict[str, Floats]:
        """The arrays by the names of the graph's inputs."""
        return dict(zip(MEMORY_INPUTS, (self.rows, self.bias, self.centre, self.fusion), strict=True))


@cache
def _no_memory(channels: int) -> MemoryTensors:
    """One object for each number of channels, so that an engine copies it once."""
    return MemoryTensors.empty(channels)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything that a graph is given for one batch.

    Attributes:
        frames: uint8 [B, H, W, 3].
        class_index: int64 [B], where several classes are baked.
        memory: Where the graph takes a reference memory.
    """

    frames: Frames
    class_index: Indices | None
    memory: MemoryTensors | None

    @classmethod
    def of(
        cls, manifest: Manifest, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Inputs:
        """Completes what a caller gives by an empty memory, where the graph takes one.

        Raises:
            BackendError: The graph takes no memory, and one is given.
        """
        if manifest.memory is None or manifest.descriptor is None:
            if memory is not None:
                raise BackendError(f"the bundle {manifest.name} takes no reference memory: export it again")
            return cls(frames, class_index, None)
        return cls(frames, class_index, memory or _no_memory(manifest.descriptor.channels))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by the inputs' names, in the manifest's order."""
        index = {} if self.class_index is None else {"class_index": self.class_index}
        return {"frame": self.frames, **index, **({} if self.memory is None else self.memory.inputs())}


def whole_batches(images: Sequence[Frames], classes: int, size: int) -> Iterator[tuple[Frames, Indices]]:
    """Images in full batches, each class used at least once: image i goes with class i modulo their number.

    Args:
        images: Each uint8 [H, W, 3]; repeated where they are too few.
        classes: How many the graph has.
        size: Of a batch.

    Yields:
        Frames [size, H, W, 3] and class indices [size].
    """
    total = -(-max(len(images), classes) // size) * size
    for start in range(0, total, size):
        numbers = np.arange(start, start + size, dtype=np.int64)
        yield np.stack([images[i % len(images)] for i in numbers]), numbers % classes


def check_signature(bundle: Bundle, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """The manifest is checked against the graph itself: shapes decide what the detector feeds.

    Args:
        bundle: Whose manifest.
        inputs: The graph's inputs as the engine reports them, in its order.
        outputs: What it gives.

    Raises:
        BackendError: They are not what the manifest says.
    """
    for kind, listed, found in (
        ("inputs", bundle.manifest.inputs, inputs),
        ("outputs", bundle.manifest.outputs, outputs),
    ):
        if list(found) != list(listed):
            raise BackendError(f"{bundle.root}: the graph's {kind} are not what the manifest says: export it again")


def fixed_rows(manifest: Manifest) -> Manifest:
    """The manifest of an engine that is built for the most rows of a memory, and for no fewer."""
    if manifest.memory is None:
        return manifest
    most = manifest.memory.rows
    inputs = tuple(
        replace(spec, shape=tuple(most if axis == ROWS else axis for axis in spec.shape)) for spec in manifest.inputs
    )
    return replace(manifest, inputs=inputs)


def descriptor_of(bundle: Bundle) -> DescriptorInfo:
    """What a bundle's descriptors are.

    Raises:
        BackendError: It has none.
    """
    if bundle.manifest.descriptor is None:
        raise BackendError(f"{bundle.root} has no descriptor output, which a reference memory needs: export it again")
    return bundle.manifest.descriptor


def any_class(manifest: Manifest, rows: int) -> Indices | None:
    """Class indices for outputs that do not depend on them: zeros int64 [rows], or None where the graph takes none."""
    return np.zeros(rows, np.int64) if len(manifest.classes) > 1 else None


def gpu_index(device: str) -> int:
    """The N of `cuda:N`; 0 for `cuda` and `auto`."""
    return int(device.partition(":")[2] or 0)


class Backend(Protocol):
    """Runs a bundle's graph.

    Attributes:
        name: Engine and device, such as `onnxruntime-cpu`.
        on_cpu: Whether this machine's processor computes.
        workers: How many threads may run it at a time.
        in_flight: How many batches it computes or holds ready at a time: so many may be submitted before the first is
            collected, and one is computed while the answers of the one before are decided.
        fallback: Why it is on the CPU although there is an engine for the GPU; None where it is as it should be.
    """

    name: str
    on_cpu: bool
    workers: int
    in_flight: int
    fallback: str | None

    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers:
        """Runs one batch.

        Args:
            frames: uint8 [B, H, W, 3], BGR, at model size, contiguous.
            class_index: int64 [B] when the bundle has several classes, else None.
            memory: A reference memory for all of the frames, of at most the manifest's rows; None for none. Where it
                lies in an engine's own memory, it is copied there when another object is given, and only then.

        Returns:
            Maps float32 [B, H, W] and scores float32 [B], both in [0, 1].

        Raises:
            BackendError: The engine failed.
        """
        ...

    def submit(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Callable[[], Answers]:
        """Begins one batch, and does not wait for it.

        Args:
            frames: As `run` takes them; they must stay as they are until the answers are collected.
            class_index: As `run` takes it.
            memory: As `run` takes it. A batch keeps the one that it was submitted with.

        Returns:
            Collects the answers, once; raises as `run` does. An engine with one batch in flight computes only then.

        Raises:
            BackendError: The engine failed.
        """
        ...

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch, whatever the class.

        Args:
            frames: As `run` takes them.

        Returns:
            float32 [B, P, D], the caller's own: for each cell of `DescriptorInfo.grid`, row by row, a unit vector.

        Raises:
            BackendError: The bundle has no descriptor output, or the engine failed.
        """
        ...

    def stop_waiting(self) -> None:
        """Ends a wait for a server that is away, with StoppedWaitingError, and every later one; from any thread."""
        ...

    def close(self) -> None:
        """Releases the engine."""
        ...


class _Runs(Protocol):
    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers: ...


class BaseBackend:
    """The part of `Backend` that an engine in this process with one batch in flight has no need of."""

    on_cpu: bool = False
    in_flight: int = 1
    fallback: str | None = None

    def submit(
        self: _Runs, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Callable[[], Answers]:
        """See `Backend.submit`."""
        return partial(self.run, frames, class_index, memory)

    def stop_waiting(self) -> None:
        """Nothing: it waits for no server."""


class FetchingBackend(BaseBackend, ABC):
    """An engine that gives outputs of the graph by their names: `run` and `describe` are a fetch each."""

    _bundle: Bundle

    @abstractmethod
    def _fetch(self, names: Sequence[str], inputs: Inputs) -> list[Floats]:
        """Runs one batch.

        Args:
            names: Of the outputs that are wanted, in the order in which they are returned.
            inputs: Every input of the graph.

        Returns:
            Each output, float32 and the caller's own.

        Raises:
            BackendError: The engine failed, or is closed.
        """

    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers:
        """Runs one batch; see `Backend.run`."""
        maps, scores = self._fetch(FETCHED, Inputs.of(self._bundle.manifest, frames, class_index, memory))
        return maps, scores

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch; see `Backend.describe`."""
        descriptor_of(self._bundle)
        manifest = self._bundle.manifest
        inputs = Inputs.of(manifest, frames, any_class(manifest, len(frames)))
        (descriptors,) = self._fetch((DESCRIPTOR,), inputs)
        return descriptors
