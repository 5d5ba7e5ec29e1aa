"""The detector: a frame in, a score, a map and a verdict out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, thread_time
from types import TracebackType

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.graph import Graph
from kanoclip.runtime.detect.preprocess import Prepared, check_frame, resize
from kanoclip.runtime.detect.rules import Rules
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.verdict import decide_all, since
from kanoclip.runtime.engines import Backend, Report, create_backend, silent
from kanoclip.runtime.engines.inputs import Floats
from kanoclip.runtime.types import Detection, Image


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
        graph: What it runs.
        rules: What it decides by.
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
        self.graph = Graph(bundle, backend, revive)
        self._size = bundle.manifest.frame_size
        self.rules = Rules(bundle, settings or Settings())

    @property
    def bundle(self) -> Bundle:
        """The model that it runs, with the thresholds and memories of now."""
        return self.rules.bundle

    def thresholds_of(self, class_name: str | None = None) -> Thresholds:
        """The thresholds of a class; None for the first class.

        Raises:
            FrameError: The class is unknown.
        """
        return self.rules.limits(class_name).thresholds

    @property
    def backend(self) -> Backend:
        """The engine that runs it; another one after its GPU was lost."""
        return self.graph.backend

    @property
    def workers(self) -> int:
        """How many threads run the engine at a time; further ones wait."""
        return self.backend.workers

    @property
    def in_flight(self) -> int:
        """How many batches may begin before the first is waited for: 2 on a GPU by TensorRT."""
        return self.backend.in_flight

    @property
    def batch_size(self) -> int:
        """How many frames in one run of the engine give the most fps.

        On a CPU that is one where the bundle leaves the choice, since two workers side by side gain more than a
        batch does (docs/measurements.md). A bundle of a fixed batch is best used in full. Of a frame that is cut, all
        tiles go together.
        """
        manifest = self.bundle.manifest
        if manifest.dynamic_batch and self.backend.on_cpu:
            return 1
        return max(manifest.max_batch // self.rules.tiling.count, 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width that frames are resized to, before they are cut into tiles."""
        return self.rules.tiling.canvas

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
        roi = self.rules.limits(class_name).roi
        if roi is not None:
            roi.check_frame(height, width)
        self.rules.tiling.check_frame(height, width)
        small = resize(check_frame(frame), *self.rules.tiling.canvas)
        tiles = None if self.rules.tiling.count == 1 else self.rules.tiling.cut(small)
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
        return self.submit(frames, class_name)()

    def submit(self, frames: Sequence[Prepared], class_name: str | None = None) -> Callable[[], list[Detection]]:
        """Begins to score prepared frames, with the thresholds and the memory of now; see `infer`.

        Returns:
            Waits for the detections, once, and decides on them. Of `in_flight` calls each may begin before the one
            before it is waited for; then one is computed while another one is decided.

        Raises:
            FrameError: The class is unknown.
            BackendError: The engine failed.
        """
        index, name = self.rules.known(class_name)
        limits, tiling = self.rules.limits(class_name), self.rules.tiling
        whole = tiling.count == 1
        images = [frame.image for frame in frames] if whole else [tile for frame in frames for tile in frame.images]
        return partial(decide_all, frames, self.graph.run(images, index, limits.memory), tiling, name, limits)

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
        tiling = self.rules.tiling
        small: list[Image] = []
        for frame in frames:
            tiling.check_frame(*check_frame(frame).shape[:2])
            small.extend(tiling.cut(resize(frame, *tiling.canvas)))
        found = self.graph.describe(small)
        return found.reshape(len(frames), tiling.count * found.shape[1], found.shape[2])

    def warmup(self, runs: int) -> None:
        """Runs the engine on black frames, so that the first real one is not the slow one."""
        count = min(self.batch_size * self.rules.tiling.count, self.bundle.manifest.max_batch)
        black, memory = [np.zeros((*self._size, 3), np.uint8)] * count, self.rules.limits(None).memory
        for _ in range(runs):
            for flying in [self.graph.run(black, 0, memory) for _ in range(self.in_flight)]:
                list(flying)

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
