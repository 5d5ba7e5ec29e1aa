"""The detector: a frame in, a score, a map and a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, thread_time
from types import TracebackType

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.graph import Graph, Output
from kanoclip.runtime.detect.learning.seen import Seen
from kanoclip.runtime.detect.preprocess import Prepared, check_frame, resize
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.reference.read import Memories, Own
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.thresholds import limits_of, unkept_promises
from kanoclip.runtime.detect.tiles import WHOLE, Tiling
from kanoclip.runtime.detect.verdict import decide, since
from kanoclip.runtime.engines import Backend, Report, create_backend, silent
from kanoclip.runtime.engines.base import Floats
from kanoclip.runtime.errors import FrameError
from kanoclip.runtime.types import Detection, Image, Images, Mask, RegionOfInterest


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
        self.bundle = bundle
        self._graph = Graph(bundle, backend, revive)
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

    def use_own(self, class_name: str | None, own: Own | None, settings: Settings | None = None) -> None:
        """Goes back to what `own_memory` returned earlier, with the thresholds of then; as `use_memory`.

        Args:
            class_name: One of the bundle's classes; None for the first.
            own: What it is scored by; None for what the bundle has.
            settings: What it decides by from the same frame on; None for what it has.

        Raises:
            FrameError: The class is unknown.
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        name = self._classes[self._class_index(class_name)]
        self._decide_by(settings or self._settings, self.bundle, self._memories.with_own(self.bundle, name, own))

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
    def backend(self) -> Backend:
        """The engine that runs it; another one after its GPU was lost."""
        return self._graph.backend

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
        trial: bool = True,
    ) -> Detector:
        """Opens a bundle and its engine.

        Args:
            path: The bundle's folder, or `builtin` for the shipped one; None for the one `*.kanoclip` in this folder,
                or else the shipped one.
            backend: As `create_backend` takes it.
            device: As `create_backend` takes it.
            threads: CPU threads, None for all cores of this process.
            threshold: Image threshold in [0, 1], None for the bundle's.
            pixel_threshold: Pixel threshold in [0, 1], None for the bundle's.
            min_area: Smallest region in original pixels, None for the bundle's.
            settings: What else it decides by, as `settings_file.read_settings` gives it; the three before override it.
            report: Called with the progress of an engine's build, which may take minutes.
            workers: How many threads may use it at a time, as `create_backend` takes it; see `Detector.workers`.
            trial: Whether `auto` may measure engines, as `create_backend` takes it.

        Raises:
            KanoclipError: The bundle, the engine or a threshold is invalid.
        """
        bundle = Bundle.open(find_bundle(None if path is None else str(path), Path.cwd()))
        settings = (settings or Settings()).overridden(Decision(threshold, pixel_threshold, min_area))
        settings.check_classes(bundle.manifest.classes)  # before an engine is made, which may take minutes

        def create() -> Backend:
            return create_backend(bundle, backend, device, threads, report, workers, trial=trial)

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
        return Prepared(small, height, width, *since(*started), tiles)

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
        limits, name, tiling = self._limits[index], self._classes[index], self._tiling
        count = tiling.count
        images = (
            [frame.image for frame in frames] if count == 1 else [tile for frame in frames for tile in frame.images]
        )
        detections: list[Detection] = []
        outputs: list[Output] = []
        for run in self._graph.run(images, index, limits.memory):
            outputs += run
            whole = len(outputs) // count  # frames of which all tiles are there
            for number in range(whole):
                of_frame = outputs[number * count : (number + 1) * count]
                detections.append(decide(frames[len(detections)], of_frame, tiling, name, limits))
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
        found = self._graph.describe(small)
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
        index = self._class_index(class_name)
        images = list(frame.images)
        if len(images) != self._tiling.count:
            raise FrameError(
                f"the frame is cut into {len(images)} tiles, and not {self._tiling.count}: prepare it again"
            )
        descriptors = self._graph.describe(images).astype(np.float16)
        maps = [output.map for run in self._graph.run(images, index, None) for output in run]
        return Seen(descriptors, np.stack(maps), np.empty((0, *descriptors.shape), np.float16))

    def score(self, frame: Prepared, class_name: str | None, memory: ReferenceMemory | None) -> float:
        """A frame's score by a memory that is not in use, inside of the class's region of interest.

        Args:
            frame: What `prepare` made.
            class_name: One of the bundle's classes; None for the first.
            memory: Made for this bundle; None for none.

        Returns:
            In [0, 1]: what `infer` would give with that memory.

        Raises:
            FrameError: The class is unknown.
            BackendError: The engine failed, or returned NaN.
        """
        index = self._class_index(class_name)
        tensors = None if memory is None else memory.tensors()
        limits = replace(self._limits[index], memory=tensors)
        outputs = [output for run in self._graph.run(list(frame.images), index, tensors) for output in run]
        return decide(frame, outputs, self._tiling, self._classes[index], limits).score

    def warmup(self, runs: int) -> None:
        """Runs the engine on black frames, so that the first real one is not the slow one."""
        for _ in range(runs):
            count = min(self.batch_size * self._tiling.count, self.bundle.manifest.max_batch)
            list(self._graph.run([np.zeros((*self._size, 3), np.uint8)] * count, 0, self._limits[0].memory))

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
