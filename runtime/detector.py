"""The detector: a frame in, a score, a map and a verdict out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time
from types import TracebackType

import numpy as np

from kanoclip.runtime.backends import Backend, Report, create_backend, silent
from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.decision import find_regions
from kanoclip.runtime.errors import BackendError, DeviceLostError, FrameError, KanoclipError
from kanoclip.runtime.manifest import Thresholds
from kanoclip.runtime.preprocess import check_frame, resize
from kanoclip.runtime.types import Detection, FloatMap, Image, Timings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answer:
    map: FloatMap
    score: float
    inference_ms: float


class Detector:
    """Scores frames with one bundle on one backend. Not for use by more threads at once than it has lanes.

    Attributes:
        bundle: What it runs.
        backend: What runs it.
        thresholds: What it decides by.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        thresholds: Thresholds,
        *,
        revive: Callable[[], Backend] | None = None,
    ) -> None:
        """Puts a detector together from parts; `Detector.load` makes them.

        Args:
            bundle: What it runs.
            backend: What runs it.
            thresholds: What it decides by.
            revive: Makes the backend anew after its GPU was lost; None to pass that error on.

        Raises:
            KanoclipError: A threshold is outside of [0, 1], or the smallest area is negative.
        """
        for name, value in (("threshold", thresholds.image), ("pixel threshold", thresholds.pixel)):
            if not 0 <= value <= 1:
                raise KanoclipError(f"{name} {value} is outside of 0 to 1")
        if thresholds.min_area < 0:
            raise KanoclipError(f"smallest area {thresholds.min_area} is negative")
        self.bundle, self.backend, self.thresholds = bundle, backend, thresholds
        self._revive = revive
        self._size = bundle.manifest.frame_size
        self._classes = bundle.manifest.classes

    @property
    def lanes(self) -> int:
        """How many threads may use it at a time."""
        return self.backend.lanes

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        threshold: float | None = None,
        pixel_threshold: float | None = None,
        min_area: int | None = None,
        report: Report = silent,
        lanes: int = 1,
    ) -> Detector:
        """Opens a bundle and its engine.

        Args:
            path: The bundle's folder.
            backend: As `create_backend` takes it.
            device: As `create_backend` takes it.
            threads: CPU threads, None for all cores of this process.
            threshold: Image threshold in [0, 1], None for the bundle's.
            pixel_threshold: Pixel threshold in [0, 1], None for the bundle's.
            min_area: Smallest region in original pixels, None for the bundle's.
            report: Told about an engine's build, which may take minutes.
            lanes: How many threads may use it at a time, as `create_backend` takes it; see `Detector.lanes`.

        Raises:
            KanoclipError: The bundle, the engine or a threshold is no good.
        """
        bundle = Bundle.open(path)
        given = bundle.manifest.thresholds
        changed = (threshold, pixel_threshold, min_area) != (None, None, None)
        thresholds = Thresholds(
            image=given.image if threshold is None else threshold,
            pixel=given.pixel if pixel_threshold is None else pixel_threshold,
            min_area=given.min_area if min_area is None else min_area,
            origin="set by the caller" if changed else given.origin,
        )

        def create() -> Backend:
            return create_backend(bundle, backend, device, threads, report, lanes)

        return cls(bundle, create(), thresholds, revive=create)

    def __call__(self, frame: Image, class_name: str | None = None) -> Detection:
        """Judges one frame.

        Args:
            frame: uint8 [H, W, 3], BGR, any size.
            class_name: One of the bundle's classes; None for the first.

        Raises:
            FrameError: The frame is no such array, or the class is unknown.
            BackendError: The engine failed, or gave NaN.
        """
        return self.batch([frame], class_name)[0]

    def batch(self, frames: Sequence[Image], class_name: str | None = None) -> list[Detection]:
        """Judges several frames, in runs as large as the bundle allows.

        A frame's inference time is its run's, divided by the frames in it.

        Args:
            frames: Each uint8 [H, W, 3], BGR, of any sizes.
            class_name: One of the bundle's classes; None for the first.

        Raises:
            FrameError: A frame is no such array, or the class is unknown.
            BackendError: The engine failed, or gave NaN.
        """
        index = self._class_index(class_name)
        small, spent = [], []
        for frame in frames:
            started = perf_counter(), thread_time()
            small.append(resize(check_frame(frame), *self._size))
            spent.append(_since(*started))
        answers: list[_Answer] = []
        for start in range(0, len(small), self.bundle.manifest.max_batch):
            answers += self._infer(small[start : start + self.bundle.manifest.max_batch], index)
        return [
            self._decide(frame, answer, resizing, self._classes[index])
            for frame, answer, resizing in zip(frames, answers, spent, strict=True)
        ]

    def warmup(self, runs: int) -> None:
        """Runs the engine on black frames, so that the first real one is not the slow one."""
        for _ in range(runs):
            self._infer([np.zeros((*self._size, 3), np.uint8)], 0)

    def close(self) -> None:
        """Releases the engine."""
        self.backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _class_index(self, name: str | None) -> int:
        if name is None:
            return 0
        if name not in self._classes:
            raise FrameError(
                f"unknown class '{name}': this bundle has {', '.join(self._classes)}; export others with --class"
            )
        return self._classes.index(name)

    def _infer(self, small: Sequence[Image], index: int) -> list[_Answer]:
        """Runs up to `max_batch` frames at model size; a static batch is filled up with its last frame."""
        manifest = self.bundle.manifest
        missing = 0 if manifest.dynamic_batch else manifest.max_batch - len(small)
        frames = small[0][None] if len(small) == 1 and not missing else np.stack([*small, *[small[-1]] * missing])
        indices = np.full(len(frames), index, np.int64) if len(self._classes) > 1 else None
        started = perf_counter()
        try:
            maps, scores = self.backend.run(frames, indices)
        except DeviceLostError as error:
            if self._revive is None:
                raise
            log.warning("%s; starting it again", error)
            self.backend.close()
            self.backend = self._revive()
            maps, scores = self.backend.run(frames, indices)  # lost twice in a row is lost
        milliseconds = (perf_counter() - started) * 1e3 / len(small)
        # A map is in [0, 1], so its sum is finite unless a value is NaN; one pass, and no mask is made.
        if not (np.isfinite(maps.sum()) and np.isfinite(scores).all()):
            raise BackendError(
                f"{self.backend.name} gave NaN: this precision overflows here; export it with --fp32, or choose "
                "another backend"
            )
        return [_Answer(maps[i], float(scores[i]), milliseconds) for i in range(len(small))]

    def _decide(self, frame: Image, answer: _Answer, resizing: tuple[float, float], class_name: str) -> Detection:
        started = perf_counter(), thread_time()
        limits = self.thresholds
        regions = find_regions(answer.map, limits.pixel, limits.min_area, *frame.shape[:2])
        deciding = _since(*started)
        return Detection(
            score=answer.score,
            map=answer.map,
            is_anomalous=answer.score >= limits.image,
            threshold=limits.image,
            regions=regions,
            class_name=class_name,
            timings=Timings(resizing[0], answer.inference_ms, deciding[0], resizing[1], deciding[1]),
        )


def _since(wall: float, cpu: float) -> tuple[float, float]:
    """Milliseconds of wall clock and of this thread's processor time since both clocks were read."""
    return (perf_counter() - wall) * 1e3, (thread_time() - cpu) * 1e3
