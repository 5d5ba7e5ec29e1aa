"""The detector: a frame in, a score, a map and a verdict out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time
from types import TracebackType
from typing import TypeVar

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.bundle.manifest import Thresholds
from kanoclip.runtime.detect.learning.seen import Seen
from kanoclip.runtime.detect.preprocess import Prepared, check_frame, resize
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.read import Memories, Own
from kanoclip.runtime.detect.regions import find_regions, peak_region, within
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.thresholds import Limits, limits_of, unkept_promises
from kanoclip.runtime.detect.tiles import WHOLE, Tiling
from kanoclip.runtime.engines import Backend, Report, create_backend, silent
from kanoclip.runtime.engines.base import Floats, Frames, MemoryTensors, descriptor_of
from kanoclip.runtime.errors import BackendError, DeviceLostError, FrameError
from kanoclip.runtime.types import Detection, FloatMap, Image, Images, Mask, RegionOfInterest, Timings

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Output:
    map: FloatMap
    score: float
    inference_ms: float


class Detector:
    """Scores frames with one bundle on one backend. Any thread may use it; at most `workers` at a time run the engine.

    Examples:
        >>> import numpy as np
        >>> from kanoclip.runtime import Detector
        >>> with Detector.load() as detector:  # the *.kanoclip in this folder, or the shipped one
        ...     found = detector(np.full((480, 640, 3), 128, np.uint8))
        >>> found.is_anomalous == (found.score >= found.threshold)
        True
        >>> found.map.shape
        (256, 256)

    Attributes:
        bundle: The model that it runs.
        backend: The engine that runs it.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        settings: Settings | None = None,
        *,
        revive: Callable[[], Backend] | None = None,
    ) -> None:
        """Puts a detector together from parts; `Detector.load` makes them.

        Args:
            bundle: The model that it runs.
            backend: The engine that runs it.
            settings: What it decides by, over the bundle's own thresholds.
            revive: Makes the backend anew after its GPU was lost; None to pass that error on.

        Raises:
            SettingsError: The settings name a class that the bundle does not have, or leave nothing of the image.
        """
        self.bundle, self.backend = bundle, backend
        self._revive = revive
        self._free = threading.Semaphore(backend.workers)
        self._size = bundle.manifest.frame_size
        self._classes = bundle.manifest.classes
        self._unkept: set[tuple[str, str | None]] = set()
        self._memories = Memories()
        self.decide_by(settings or Settings())

    def decide_by(self, settings: Settings, bundle: Bundle | None = None) -> None:
        """Changes what it decides by, from the next frame on; may be called from any thread, but one at a time.

        Args:
            settings: Over the bundle's thresholds.
            bundle: The bundle with other thresholds or memories, as `Bundle.reread` gives it, or with other tiles; None
                for what it has.

        Raises:
            SettingsError: As at the start; nothing is changed then.
            MemoryFileError: A memory is damaged or not made for this bundle; nothing is changed then.
        """
        settings.check_classes(self._classes)
        bundle = bundle or self.bundle
        self._decide_by(settings, bundle, self._memories.of(bundle))

    def _decide_by(self, settings: Settings, bundle: Bundle, memories: Memories) -> None:
        decisions = {name: settings.decision(name) for name in self._classes}
        given = memories.over(bundle)
        limits = [limits_of(given, name, decision, memories.tensors(name)) for name, decision in decisions.items()]
        unkept = unkept_promises(given, decisions, self._unkept)
        # Each class's thresholds, region and memory change together, between one run and the next.
        self.bundle, self._limits, self._unkept = bundle, limits, unkept
        self._memories, self._settings = memories, settings
        self._tiling = Tiling(bundle.manifest.tiles or WHOLE, self._size)

    def use_memory(
        self, class_name: str | None, memory: ReferenceMemory | None, thresholds: Thresholds | None = None
    ) -> None:
        """Scores a class by another memory from the next frame on, without writing it anywhere.

        May be called from any thread, but one at a time, as `decide_by`. It holds until the bundle has another memory
        for the class.

        Args:
            class_name: One of the bundle's classes; None for the first.
            memory: Made for this bundle, as `kanoclip.runtime.detect.reference.fit.fit` makes it; None for none.
            thresholds: The class's own from now on; None for those that it has.

        Raises:
            FrameError: The class is unknown.
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        before = self.own_memory(class_name)
        if thresholds is None and before is not None:
            thresholds = before.thresholds
        self.use_own(class_name, Own(memory, thresholds))

    def use_own(self, class_name: str | None, own: Own | None) -> None:
        """Goes back to what `own_memory` returned earlier, with the thresholds of then; as `use_memory`.

        Raises:
            FrameError: The class is unknown.
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        name = self._classes[self._class_index(class_name)]
        self._decide_by(self._settings, self.bundle, self._memories.with_own(self.bundle, name, own))

    def memory_of(self, class_name: str | None = None) -> ReferenceMemory | None:
        """The memory that a class is scored by; None for none.

        Raises:
            FrameError: The class is unknown.
        """
        return self._memories.memory(self._classes[self._class_index(class_name)])

    def own_memory(self, class_name: str | None = None) -> Own | None:
        """What `use_memory` gave a class; None where it is scored by what the bundle has.

        Raises:
            FrameError: The class is unknown.
        """
        return self._memories.own.get(self._classes[self._class_index(class_name)])

    def region_of(self, class_name: str | None = None) -> tuple[RegionOfInterest | None, Mask | None]:
        """A class's region of interest, and where it lies in each tile's map, bool [T, H, W]; None for everywhere.

        Raises:
            FrameError: The class is unknown.
        """
        limits = self._limits[self._class_index(class_name)]
        return limits.roi, None if limits.mask is None else np.stack(self._tiling.split(limits.mask))

    def thresholds_of(self, class_name: str | None = None) -> Thresholds:
        """The thresholds of a class; None for the first class.

        Raises:
            FrameError: The class is unknown.
        """
        return self._limits[self._class_index(class_name)].thresholds

    @property
    def settings(self) -> Settings:
        """What it decides by, over the bundle's thresholds."""
        return self._settings

    @property
    def workers(self) -> int:
        """How many threads run the engine at a time; further ones wait."""
        return self.backend.workers

    @property
    def batch_size(self) -> int:
        """How many frames in one run of the engine give the most fps.

        On a CPU that is one where the bundle leaves the choice, since two workers side by side gain more than a
        batch does (docs/measurements.md). A bundle of a fixed batch is best used in full. Of a frame that is cut, all
        tiles go together.
        """
        manifest = self.bundle.manifest
        if manifest.dynamic_batch and self.backend.name.endswith("-cpu"):
            return 1
        return max(manifest.max_batch // self._tiling.count, 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width that frames are resized to, before they are cut into tiles."""
        return self._tiling.canvas

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        threshold: float | None = None,
        pixel_threshold: float | None = None,
        min_area: int | None = None,
        settings: Settings | None = None,
        report: Report = silent,
        workers: int = 1,
    ) -> Detector:
        """Opens a bundle and its engine.

        Args:
            path: The bundle's folder; None for the one `*.kanoclip` in this folder, or else the shipped one.
            backend: As `create_backend` takes it.
            device: As `create_backend` takes it.
            threads: CPU threads, None for all cores of this process.
            threshold: Image threshold in [0, 1], None for the bundle's.
            pixel_threshold: Pixel threshold in [0, 1], None for the bundle's.
            min_area: Smallest region in original pixels, None for the bundle's.
            settings: What else it decides by, as `settings_file.read_settings` gives it; the three before override it.
            report: Called with the progress of an engine's build, which may take minutes.
            workers: How many threads may use it at a time, as `create_backend` takes it; see `Detector.workers`.

        Raises:
            KanoclipError: The bundle, the engine or a threshold is invalid.
        """
        bundle = Bundle.open(find_bundle(None, Path.cwd()) if path is None else path)
        settings = (settings or Settings()).overridden(Decision(threshold, pixel_threshold, min_area))
        settings.check_classes(bundle.manifest.classes)  # before an engine is made, which may take minutes

        def create() -> Backend:
            return create_backend(bundle, backend, device, threads, report, workers)

        return cls(bundle, create(), settings, revive=create)

    def __call__(self, frame: Image, class_name: str | None = None) -> Detection:
        """Scores one frame.

        Args:
            frame: uint8 [H, W, 3], BGR, any size.
            class_name: One of the bundle's classes; None for the first.

        Raises:
            FrameError: The frame is no such array, or the class is unknown.
            BackendError: The engine failed, or returned NaN.
        """
        return self.batch([frame], class_name)[0]

    def batch(self, frames: Sequence[Image], class_name: str | None = None) -> list[Detection]:
        """Scores several frames, in runs as large as the bundle allows.

        A frame's inference time is its run's, divided by the frames in it.

        Args:
            frames: Each uint8 [H, W, 3], BGR, of any sizes.
            class_name: One of the bundle's classes; None for the first.

        Raises:
            FrameError: A frame is no such array, or the class is unknown.
            BackendError: The engine failed, or returned NaN.
        """
        return self.infer([self.prepare(frame, class_name) for frame in frames], class_name)

    def prepare(self, frame: Image, class_name: str | None = None, size: tuple[int, int] | None = None) -> Prepared:
        """Checks and resizes a frame; the first half of scoring it, which may be done in any thread.

        Args:
            frame: uint8 [H, W, 3], BGR, any size.
            class_name: One of the bundle's classes; None for the first.
            size: Height and width of the original image, where `frame` was decoded at a smaller scale.

        Raises:
            FrameError: The frame is no such array or has fewer pixels than tiles, or the class is unknown.
        """
        started = perf_counter(), thread_time()
        height, width = size or check_frame(frame).shape[:2]
        roi = self._limits[self._class_index(class_name)].roi
        if roi is not None:
            roi.check_frame(height, width)
        self._tiling.check_frame(height, width)
        small = resize(check_frame(frame), *self._tiling.canvas)
        tiles = None if self._tiling.count == 1 else self._tiling.cut(small)
        return Prepared(small, height, width, *_since(*started), tiles)

    def infer(self, frames: Sequence[Prepared], class_name: str | None = None) -> list[Detection]:
        """Scores prepared frames, in runs as large as the bundle allows; the second half.

        Args:
            frames: What `prepare` made, for the same class.
            class_name: One of the bundle's classes; None for the first.

        Raises:
            FrameError: The class is unknown.
            BackendError: The engine failed, or returned NaN.
        """
        index = self._class_index(class_name)
        limits = self._limits[index]
        most = self.bundle.manifest.max_batch
        count = self._tiling.count
        images = (
            [frame.image for frame in frames] if count == 1 else [tile for frame in frames for tile in frame.images]
        )
        detections: list[Detection] = []
        outputs: list[_Output] = []
        for start in range(0, len(images), most):
            outputs += self._infer(images[start : start + most], index, limits.memory)
            whole = len(outputs) // count  # frames of which all tiles are there
            for number in range(whole):
                frame = frames[len(detections)]
                detections.append(self._decide(frame, outputs[number * count : (number + 1) * count], index, limits))
            del outputs[: whole * count]
        return detections

    def describe(self, frames: Sequence[Image]) -> Floats:
        """Computes the descriptors of several frames, in runs as large as the bundle allows.

        They are the same for every class, and those of the whole frame: no region of interest is applied.

        Args:
            frames: Each uint8 [H, W, 3], BGR, of any sizes.

        Returns:
            float32 [N, n * P, D], the caller's own: for each frame, each of its n tiles (1 without), row by row, and
            each cell of the bundle's `DescriptorInfo.grid`, row by row, a unit vector.

        Raises:
            FrameError: A frame is no such array.
            BackendError: The bundle has no descriptor output, or the engine failed, or returned NaN.
        """
        small = [image for frame in frames for image in self._cut(frame)]
        found = self._described(small)
        return found.reshape(len(frames), self._tiling.count * found.shape[1], found.shape[2])

    def look(self, frame: Prepared, class_name: str | None = None) -> Seen:
        """What a reference memory is made of: a frame's descriptors and its zero-shot maps, whatever memory it has.

        No region of interest is applied.

        Args:
            frame: What `prepare` made.
            class_name: The class of the maps; None for the first.

        Raises:
            FrameError: The class is unknown, or the frame was cut into other tiles than the bundle's of now.
            BackendError: The bundle has no descriptor output, or the engine failed, or returned NaN.
        """
        index, most = self._class_index(class_name), self.bundle.manifest.max_batch
        images = list(frame.images)
        if len(images) != self._tiling.count:
            raise FrameError(
                f"the frame is cut into {len(images)} tiles, and not {self._tiling.count}: prepare it again"
            )
        descriptors = self._described(images).astype(np.float16)
        maps = [
            output.map
            for start in range(0, len(images), most)
            for output in self._infer(images[start : start + most], index, None)
        ]
        return Seen(descriptors, np.stack(maps), np.empty((0, *descriptors.shape), np.float16))

    def _described(self, small: Sequence[Image]) -> Floats:
        """Descriptors of frames or tiles at model size, in runs as large as the bundle allows: float32 [n, P, D]."""
        info, most = descriptor_of(self.bundle), self.bundle.manifest.max_batch
        found = np.empty((len(small), info.cells, info.channels), np.float32)
        for start in range(0, len(small), most):
            run = small[start : start + most]
            # The rows beyond are those that fill a static batch up.
            found[start : start + len(run)] = self._describe(self._batch_of(run))[: len(run)]
        # The components of unit vectors are in [-1, 1]: their sum is finite unless one of them is NaN.
        if not np.isfinite(found.sum(dtype=np.float64)):
            raise self._gave_nan()
        return found

    def warmup(self, runs: int) -> None:
        """Runs the engine on black frames, so that the first real one is not the slow one."""
        for _ in range(runs):
            count = min(self.batch_size * self._tiling.count, self.bundle.manifest.max_batch)
            self._infer([np.zeros((*self._size, 3), np.uint8)] * count, 0, self._limits[0].memory)

    def stop_waiting(self) -> None:
        """Ends a wait for a server that is away, with StoppedWaitingError; from any thread."""
        self.backend.stop_waiting()

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

    def _cut(self, frame: Image) -> Images:
        """What the graph sees of a frame, uint8 [n, h, w, 3]."""
        self._tiling.check_frame(*check_frame(frame).shape[:2])
        return self._tiling.cut(resize(frame, *self._tiling.canvas))

    def _infer(self, small: Sequence[Image], index: int, memory: MemoryTensors | None) -> list[_Output]:
        """Runs up to `max_batch` frames or tiles, at model size."""
        frames = self._batch_of(small)
        indices = np.full(len(frames), index, np.int64) if len(self._classes) > 1 else None
        started = perf_counter()
        maps, scores = self._use(lambda backend: backend.run(frames, indices, memory))
        milliseconds = (perf_counter() - started) * 1e3 / len(small)
        # A map is in [0, 1], so its sum is finite unless a value is NaN; one pass, and no mask is made.
        if not (np.isfinite(maps.sum()) and np.isfinite(scores).all()):
            raise self._gave_nan()
        return [_Output(maps[i], float(scores[i]), milliseconds) for i in range(len(small))]

    def _batch_of(self, small: Sequence[Image]) -> Frames:
        """One batch, uint8 [B, H, W, 3], of frames at model size; a static one is filled up with its last frame."""
        manifest = self.bundle.manifest
        missing = 0 if manifest.dynamic_batch else manifest.max_batch - len(small)
        return small[0][None] if len(small) == 1 and not missing else np.stack([*small, *[small[-1]] * missing])

    def _use(self, work: Callable[[Backend], T]) -> T:
        """Uses the backend when it is free; one whose GPU was lost is made anew, once."""
        with self._free:
            try:
                return work(self.backend)
            except DeviceLostError as error:
                if self._revive is None:
                    raise
                log.warning("%s; starting it again", error)
                self.backend.close()
                self.backend = self._revive()
                return work(self.backend)  # a second loss in a row is final

    def _describe(self, frames: Frames) -> Floats:
        return self._use(lambda backend: backend.describe(frames))

    def _gave_nan(self) -> BackendError:
        return BackendError(
            f"{self.backend.name} returned NaN: this precision overflows here; export it with --fp32, or choose "
            "another backend"
        )

    def _decide(self, frame: Prepared, outputs: Sequence[_Output], index: int, limits: Limits) -> Detection:
        """A frame's detection from the outputs for its tiles, of which there is one where it is not cut."""
        started = perf_counter(), thread_time()
        thresholds = limits.thresholds
        if limits.mask is not None:
            outputs = self._within(outputs, limits.mask, limits.peak_weight)
        output = outputs[0] if len(outputs) == 1 else self._stitched(outputs)
        anomaly_map, score = output.map, output.score
        regions = find_regions(
            anomaly_map, thresholds.pixel, thresholds.min_area, frame.height, frame.width, limits.mask
        )
        is_anomalous = score >= thresholds.image
        if is_anomalous and not regions:  # an anomaly always comes with a place to look at
            regions = (peak_region(anomaly_map, frame.height, frame.width, limits.mask),)
        deciding = _since(*started)
        return Detection(
            score=score,
            map=anomaly_map,
            is_anomalous=is_anomalous,
            threshold=thresholds.image,
            regions=regions,
            class_name=self._classes[index],
            timings=Timings(frame.resize_ms, output.inference_ms, deciding[0], frame.resize_cpu_ms, deciding[1]),
            roi=limits.roi,
        )

    def _within(self, outputs: Sequence[_Output], mask: Mask, peak_weight: float) -> list[_Output]:
        """What the region of interest leaves of each tile; one that lies outside of it has no say in the score."""
        left = []
        for output, part in zip(outputs, self._tiling.split(mask), strict=True):
            anomaly_map, score = within(output.map, output.score, part, peak_weight)
            left.append(_Output(anomaly_map, score if part.any() else 0.0, output.inference_ms))
        return left

    def _stitched(self, outputs: Sequence[_Output]) -> _Output:
        """A frame's output from those for its tiles: one map, the largest score, and all of the time."""
        anomaly_map = self._tiling.stitch([output.map for output in outputs])
        score = max(output.score for output in outputs)
        return _Output(anomaly_map, score, sum(output.inference_ms for output in outputs))


def _since(wall: float, cpu: float) -> tuple[float, float]:
    """Milliseconds of wall clock and of this thread's processor time since both clocks were read."""
    return (perf_counter() - wall) * 1e3, (thread_time() - cpu) * 1e3
