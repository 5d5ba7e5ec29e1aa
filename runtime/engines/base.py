"""What the detector asks of an inference engine."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.distance_graph import distance_graph
from kanoclip.runtime.bundle.manifest.signature import DESCRIPTOR, DescriptorInfo, TensorSpec
from kanoclip.runtime.engines.inputs import (
    Floats,
    Frames,
    Indices,
    Inputs,
    MemoryTensors,
    any_class,
    by_distance,
)
from kanoclip.runtime.errors import BackendError, one_line

T = TypeVar("T")

log = logging.getLogger(__name__)

FETCHED = ("map", "score")
"""The outputs that `Backend.run` fetches: a descriptor is larger than both, and stays where it was computed."""
Answers = tuple[Floats, Floats]
"""Maps float32 [B, H, W] and scores float32 [B], both in [0, 1]."""
Report = Callable[[str, float], None]
"""Called with a long step's name and the share of it that is done, 0 to 1."""


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


def cut_for_distances(bundle: Bundle, open_graph: Callable[[bytes], T]) -> T | None:
    """Opens the graph that gives the distances to a memory, and nothing else.

    Args:
        bundle: Whose graph.
        open_graph: Opens an ONNX model; whatever it raises.

    Returns:
        What it gives; None where the graph cannot be cut or opened: the whole one does.
    """
    try:
        graph = distance_graph(bundle.model_path)
        return None if graph is None else open_graph(graph)
    except Exception as error:  # engines' exceptions share no base class
        log.info("without a graph for distances alone: %s", one_line(error))
        return None


def descriptor_of(bundle: Bundle) -> DescriptorInfo:
    """What a bundle's descriptors are.

    Raises:
        BackendError: It has none.
    """
    if bundle.manifest.descriptor is None:
        raise BackendError(f"{bundle.root} has no descriptor output, which a reference memory needs: export it again")
    return bundle.manifest.descriptor


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

    def _distances(self, inputs: Inputs) -> Floats | None:
        """Runs one batch on a graph that gives the distances to the memory, and nothing else.

        Returns:
            Smoothed, float32 [B, H, W] in [0, 2], the caller's own; None where there is no such graph.

        Raises:
            BackendError: The engine failed.
        """
        return None

    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers:
        """Runs one batch; see `Backend.run`.

        On a CPU a zero-shot map that has no weight is not computed. A GPU has it in its engine, and its CUDA graph.
        """
        inputs = Inputs.of(self._bundle.manifest, frames, class_index, memory)
        if memory is not None and self.on_cpu and memory.decides_alone:
            distances = self._distances(inputs)
            if distances is not None:
                return by_distance(distances, memory)
        maps, scores = self._fetch(FETCHED, inputs)
        return maps, scores

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch; see `Backend.describe`."""
        descriptor_of(self._bundle)
        manifest = self._bundle.manifest
        inputs = Inputs.of(manifest, frames, any_class(manifest, len(frames)))
        (descriptors,) = self._fetch((DESCRIPTOR,), inputs)
        return descriptors
