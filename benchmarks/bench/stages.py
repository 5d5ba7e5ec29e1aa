"""Where the time goes: each stage of a frame, and a whole stream through the pipeline that kanoclip-run uses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.runners.runners import Runner, open_backend
from kanoclip.benchmarks.bench.runners.split import Split, SplitBackend
from kanoclip.benchmarks.bench.turns import Tick
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines import Backend
from kanoclip.runtime.engines.base import Answers, BaseBackend
from kanoclip.runtime.engines.inputs import Floats, Frames, Indices, MemoryTensors
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.heat_map import Canvas
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.files.video import VideoSource
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import BadFrame, Frame

STAGES = ("capture", "resize", "upload", "inference", "download", "decide", "draw")
WORKERS = (1, 2)
LEAST_FRAMES = 8
"""Of a stream, however long they take."""
VIDEO_FRAMES = 60
"""Length of the video, which begins again when it ends."""


class _Splitting(BaseBackend):
    """A backend that remembers the parts of its last run, where it can tell them apart."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.on_cpu, self.workers, self._backend = backend.name, backend.on_cpu, 1, backend
        self.last = Split(None, 0.0, None)

    def run(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> tuple[Floats, Floats]:
        """See `Backend.run`."""
        if isinstance(self._backend, SplitBackend):
            maps, scores, self.last = self._backend.run_split(frames, class_index)
            return maps, scores
        started = perf_counter()
        maps, scores = self._backend.run(frames, class_index, memory)
        self.last = Split(None, (perf_counter() - started) * 1e3, None)
        return maps, scores

    def describe(self, frames: Frames) -> Floats:
        """See `Backend.describe`; it is not measured."""
        return self._backend.describe(frames)

    def close(self) -> None:
        """The backend stays its owner's."""


def measure_stages(
    bundle: Bundle, runners: Sequence[Runner], video: Path, rounds: int, journal: Journal, tick: Tick
) -> dict[str, dict[str, float | None]]:
    """Median milliseconds of each stage, one frame after the other, the runners in turns.

    Args:
        bundle: What runs.
        runners: By what.
        video: Where frames come from; begun again when it ends.
        rounds: Frames.
        journal: Keeps each frame's times.
        tick: Called after each frame.

    Returns:
        Of each runner, by STAGES; None for what is not done there or cannot be told apart.
    """
    untrained = not bundle.manifest.model.trained
    splits = {runner.name: _Splitting(runner.backend) for runner in runners}
    detectors = {name: Detector(bundle, split) for name, split in splits.items()}
    frames = _endless(video)
    canvas = Canvas()  # as sinks have one

    def one_frame() -> dict[str, dict[str, float | None]]:
        frame = next(frames)
        found: dict[str, dict[str, float | None]] = {}
        for name, detector in detectors.items():
            detection = detector(frame.image)
            started = perf_counter()
            annotate(frame.image, detection, untrained=untrained, canvas=canvas)
            drawn = (perf_counter() - started) * 1e3
            parts, times = splits[name].last, detection.timings
            values = (
                frame.capture_ms,
                times.resize,
                parts.upload,
                parts.inference,
                parts.download,
                times.decide,
                drawn,
            )
            found[name] = dict(zip(STAGES, values, strict=True))
        return found

    measured: dict[str, dict[str, list[float]]] = {r.name: {stage: [] for stage in STAGES} for r in runners}
    for number in range(rounds):
        for name, stages in journal.once(f"stages/{number}", one_frame).items():
            for stage, milliseconds in stages.items():
                if milliseconds is not None:
                    measured[name][stage].append(milliseconds)
        tick("stages")
    return {
        name: {stage: float(np.median(times)) if times else None for stage, times in stages.items()}
        for name, stages in measured.items()
    }


def _endless(video: Path) -> Generator[Frame, None, None]:
    while True:
        source = VideoSource(video)
        try:
            for frame in source.frames():
                if not isinstance(frame, BadFrame):
                    yield frame
        finally:
            source.close()


class _Repeated(BaseSource):
    """A video over and over for some seconds, in which a fast engine gets more frames than a slow one."""

    name, live, count, fps, root = "video", False, None, None, None

    def __init__(self, video: Path, seconds: float) -> None:
        self._video, self._seconds = video, seconds

    def frames(self) -> Iterator[Frame | BadFrame]:
        """See `Source.frames`."""
        until = perf_counter() + self._seconds
        with closing(_endless(self._video)) as endless:
            for number, frame in enumerate(endless):
                if number >= LEAST_FRAMES and perf_counter() > until:
                    return
                yield frame

    def close(self) -> None:
        """`frames` closes the file."""


@dataclass(frozen=True)
class _Case:
    runner: Runner
    workers: int

    @property
    def name(self) -> str:
        return f"{self.runner.name}, {self.workers}"


def measure_streams(
    bundle: Bundle,
    runners: Sequence[Runner],
    video: Path,
    seconds: float,
    repeat: int,
    threads: int | None,
    journal: Journal,
    tick: Tick,
) -> dict[str, dict[int, dict[str, float]]]:
    """A video through the whole pipeline, as `kanoclip-run` does it without any output.

    Args:
        bundle: What runs.
        runners: By what; each with one frame at a time, and with two where it can.
        video: Where frames come from.
        seconds: How long each stream lasts.
        repeat: Streams of each, in turns.
        threads: CPU threads, None for all cores.
        journal: Keeps each stream.
        tick: Called after each stream.

    Returns:
        Of each runner by frames at a time: `fps`, and `inside_inference`, the share of the wall time in which a
        frame was in the engine; medians.
    """
    cases = [_Case(runner, workers) for runner in runners for workers in WORKERS if _can(runner, workers, threads)]

    def stream(case: _Case) -> dict[str, float] | None:
        own = case.workers > 1  # an engine with two workers is another one, and need not be in memory all the time
        backend = case.runner.backend
        if own:
            backend = open_backend(bundle, case.runner.engine, case.runner.device, threads, workers=case.workers)
        try:
            if backend.workers < case.workers:
                return None
            counted = _Counting(backend)
            detector = Detector(bundle, counted)
            detector.warmup(1)
            counted.seconds = 0.0
            config = PipelineConfig(
                policy=Policy.WAIT,
                workers=case.workers,
                batch=detector.batch_size,
                in_flight=detector.in_flight,
            )
            summary = Pipeline(_Repeated(video, seconds), detector, [], config).run()
            if summary.interrupted:
                raise KeyboardInterrupt
            return {"fps": summary.fps, "inside_inference": min(counted.seconds / summary.wall_s, 1.0)}
        finally:
            if own:
                backend.close()

    found: dict[str, dict[int, list[dict[str, float]]]] = {runner.name: {} for runner in runners}
    for number in range(repeat):
        for case in cases:
            reported = journal.once(f"stream/{number}/{case.name}", lambda case=case: stream(case))  # type: ignore[misc]
            if reported is not None:
                found[case.runner.name].setdefault(case.workers, []).append(reported)
            tick("stream")
    return {
        name: {
            workers: {key: float(np.median([one[key] for one in runs])) for key in ("fps", "inside_inference")}
            for workers, runs in by_workers.items()
        }
        for name, by_workers in found.items()
    }


class _Counting(BaseBackend):
    """A backend that adds up the time in which at least one frame is in it."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.on_cpu, self._backend = backend.name, backend.on_cpu, backend
        self.workers, self.in_flight = backend.workers, backend.in_flight
        self.seconds = 0.0
        self._lock, self._inside, self._since = threading.Lock(), 0, 0.0

    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers:
        """See `Backend.run`."""
        self._enter()
        return self._leave_after(partial(self._backend.run, frames, class_index, memory))

    def submit(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Callable[[], Answers]:
        """See `Backend.submit`. An engine with one batch in flight has it only while it is waited for."""
        if self.in_flight == 1:
            return partial(self.run, frames, class_index, memory)
        self._enter()
        return partial(self._leave_after, self._backend.submit(frames, class_index, memory))

    def _enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._since = perf_counter()
            self._inside += 1

    def _leave_after(self, work: Callable[[], Answers]) -> Answers:
        try:
            return work()
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self.seconds += perf_counter() - self._since

    def describe(self, frames: Frames) -> Floats:
        """See `Backend.describe`; it is not measured."""
        return self._backend.describe(frames)

    def close(self) -> None:
        """The backend stays its owner's."""


def _can(runner: Runner, workers: int, threads: int | None) -> bool:
    """Two frames at a time are for engines on a CPU with two threads or more."""
    return workers == 1 or (not runner.is_torch and runner.device == "cpu" and (threads or own_cores()) >= workers)
