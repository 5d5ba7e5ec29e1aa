"""Runs of a bundle's graph on an engine: batches made up, NaN refused, a lost GPU started again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import Backend
from kanoclip.runtime.engines.base import Answers, descriptor_of
from kanoclip.runtime.engines.inputs import Floats, Frames, MemoryTensors
from kanoclip.runtime.errors import BackendError, DeviceLostError
from kanoclip.runtime.types import FloatMap, Image

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Output:
    """What the graph gives for an image, or for a whole frame once its tiles are put together.

    Attributes:
        map: float32 [h, w] in [0, 1].
        score: In [0, 1].
        inference_ms: Milliseconds in the engine; of a batch, the image's share.
    """

    map: FloatMap
    score: float
    inference_ms: float


@dataclass(frozen=True, slots=True)
class _Flight:
    """A run that has begun.

    Attributes:
        count: Images in it.
        submitted: On `perf_counter`.
        backend: What it began on.
        collect: Waits for its answers; None where its GPU was lost.
        again: Makes it once more, on another engine.
    """

    count: int
    submitted: float
    backend: Backend
    collect: Callable[[], Answers] | None
    again: Callable[[Backend], Answers]


class Graph:
    """A bundle's graph on one engine. Any thread may run it; further ones than the engine takes wait.

    Attributes:
        backend: The engine; another one after its GPU was lost.
    """

    def __init__(self, bundle: Bundle, backend: Backend, revive: Callable[[], Backend] | None = None) -> None:
        """Puts it together.

        Args:
            bundle: Whose graph.
            backend: The engine that runs it.
            revive: Makes the engine anew after its GPU was lost; None to pass that error on.
        """
        self.backend = backend
        self._bundle, self._revive = bundle, revive
        self._free = threading.Semaphore(backend.workers)
        self._landed_at = 0.0  # of `perf_counter`

    def run(self, images: Sequence[Image], class_index: int, memory: MemoryTensors | None) -> Iterator[list[Output]]:
        """Scores images in runs as large as the bundle allows.

        The first has begun when this returns, and each further one when the one before it is waited for.

        Args:
            images: At the graph's size, uint8 [h, w, 3], BGR.
            class_index: Of the bundle's classes.
            memory: A reference memory; None for none.

        Returns:
            Yields the outputs of one run, in order.

        Raises:
            BackendError: The engine failed, or returned NaN.
        """
        most = self._bundle.manifest.max_batch
        parts = (images[start : start + most] for start in range(0, len(images), most))
        flights = (self._begin(part, class_index, memory) for part in parts)
        return self._landed(next(flights, None), flights)

    def _landed(self, flight: _Flight | None, following: Iterator[_Flight]) -> Iterator[list[Output]]:
        while flight is not None:
            after = next(following, None)
            yield self._land(flight)
            flight = after

    def _begin(self, images: Sequence[Image], class_index: int, memory: MemoryTensors | None) -> _Flight:
        """Begins one run. Where the GPU is lost in that, another one is there when the run is waited for."""
        frames = self._batch_of(images)
        several = len(self._bundle.manifest.classes) > 1
        indices = np.full(len(frames), class_index, np.int64) if several else None
        with self._free:
            submitted, backend = perf_counter(), self.backend
            try:
                collect = backend.submit(frames, indices, memory)
            except DeviceLostError as error:
                self._restart(error)
                collect = None
        return _Flight(len(images), submitted, backend, collect, lambda engine: engine.run(frames, indices, memory))

    def _land(self, flight: _Flight) -> list[Output]:
        """Waits for a run. One whose GPU was lost meanwhile, by whatever, is made once more; a second loss is final."""
        with self._free:
            # The engine was busy with another one until then, or begins only now.
            started = perf_counter() if self.backend.in_flight == 1 else max(flight.submitted, self._landed_at)
            answers = None
            if flight.collect is not None and flight.backend is self.backend:
                try:
                    answers = flight.collect()
                except DeviceLostError as error:
                    self._restart(error)
            maps, scores = answers or flight.again(self.backend)
            self._landed_at = perf_counter()
            milliseconds = (self._landed_at - started) * 1e3 / flight.count
        # A map is in [0, 1], so its sum is finite unless a value is NaN; one pass, and no mask is made.
        if not (np.isfinite(maps.sum()) and np.isfinite(scores).all()):
            raise self._gave_nan()
        return [Output(maps[i], float(scores[i]), milliseconds) for i in range(flight.count)]

    def describe(self, images: Sequence[Image]) -> Floats:
        """Descriptors of images, in runs as large as the bundle allows.

        Args:
            images: At the graph's size, uint8 [h, w, 3], BGR.

        Returns:
            float32 [n, P, D], unit vectors; the caller's own.

        Raises:
            BackendError: The bundle has no descriptor output, or the engine failed, or returned NaN.
        """
        info, most = descriptor_of(self._bundle), self._bundle.manifest.max_batch
        found = np.empty((len(images), info.cells, info.channels), np.float32)
        for start in range(0, len(images), most):
            run = images[start : start + most]
            frames = self._batch_of(run)
            # The rows beyond are those that fill a static batch up.
            found[start : start + len(run)] = self._use(lambda backend, x=frames: backend.describe(x))[: len(run)]  # type: ignore[misc]
        # The components of unit vectors are in [-1, 1]: their sum is finite unless one of them is NaN.
        if not np.isfinite(found.sum(dtype=np.float64)):
            raise self._gave_nan()
        return found

    def _batch_of(self, images: Sequence[Image]) -> Frames:
        """One batch, uint8 [B, h, w, 3]; a static one is filled up with its last image."""
        manifest = self._bundle.manifest
        missing = 0 if manifest.dynamic_batch else manifest.max_batch - len(images)
        return images[0][None] if len(images) == 1 and not missing else np.stack([*images, *[images[-1]] * missing])

    def _use(self, work: Callable[[Backend], T]) -> T:
        """Uses the engine when it is free; one whose GPU was lost is made anew, once."""
        with self._free:
            try:
                return work(self.backend)
            except DeviceLostError as error:
                self._restart(error)
                return work(self.backend)  # a second loss in a row is final

    def _restart(self, error: DeviceLostError) -> None:
        """Makes the engine anew, in the thread that met the loss; what was in flight is lost with the old one."""
        if self._revive is None:
            raise error
        log.warning("%s; starting it again", error)
        self.backend.close()
        self.backend = self._revive()

    def _gave_nan(self) -> BackendError:
        return BackendError(
            f"{self.backend.name} returned NaN: this precision overflows here; export it with --fp32, or choose "
            "another backend"
        )
