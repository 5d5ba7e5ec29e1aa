"""Reads the state of a running stream, and changes what it decides by: class, thresholds, reference memory."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.alarm import EVERY_FRAME
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.live import FROM_OUTSIDE, LiveReferences, MemoryCount
from kanoclip.runtime.detect.learning.teaching.teacher import Teacher
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.settings.saved_region import save_region
from kanoclip.runtime.detect.settings.saved_thresholds import Saved, save
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.thresholds import promised
from kanoclip.runtime.errors import FrameError, KanoclipError, SettingsError, SourceError, one_line
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.sources.several import NamedSource
from kanoclip.runtime.stream.config import Criteria
from kanoclip.runtime.stream.control.live_run import LiveRun
from kanoclip.runtime.stream.control.progress import Progress, RunSummary
from kanoclip.runtime.stream.control.protocol import StreamState
from kanoclip.runtime.types import Image, RegionOfInterest

log = logging.getLogger(__name__)

MOST_SOURCES = 64
"""Of one run, those that were removed included: each has its place in every queue until the end."""


class StreamControl:
    """`Control` of a pipeline that runs or will run.

    `reload` does what a new start would: it discards what was chosen while the stream ran and was not saved.

    Args:
        run: The pipeline's.
        detector: Scores its frames; nothing else may change what it decides by.
        class_name: Class that the run looks for.
        read: Reads again the settings that a new start would use.
    """

    def __init__(
        self,
        run: LiveRun,
        detector: Detector,
        class_name: str,
        read: Callable[[Bundle], Saved],
    ) -> None:
        self._run = run
        self._detector = detector
        self._class_name = class_name
        self._read = read
        self._changing = threading.RLock()
        self._references = LiveReferences(detector, self._changing)
        self._teacher = Teacher(detector, self._references, self._changing, run, self.use_memory)

    @property
    def teacher(self) -> Teacher:
        """See `Control.teacher`."""
        return self._teacher

    def state(self) -> StreamState:
        """See `Control.state`."""
        with self._changing:
            manifest = self._detector.bundle.manifest
            thresholds = self._detector.thresholds_of(self._class_name)
            decision = self._detector.rules.settings.decision(self._class_name)
            memory = self._references.count(self._class_name)
            there = [counts.source for counts in self._run.members if not counts.removed]
            engine = self._detector.backend
            return StreamState(
                bundle=manifest.name,
                backend=engine.name if engine.fallback is None else f"{engine.name}, not the GPU",
                fallback=engine.fallback,
                sources=tuple(one.name for one in there),
                streams=tuple(one.name if isinstance(one, NamedSource) else "" for one in there),
                classes=manifest.classes,
                class_name=self._class_name,
                threshold=thresholds.image,
                pixel_threshold=thresholds.pixel,
                paused=self._run.paused,
                trained=manifest.model.trained,
                references=memory.references,
                memory_rows=memory.rows,
                memory_saved=self._references.saved(self._class_name),
                region=None if decision.roi is None else decision.roi.digest(),
                promised=promised(manifest.thresholds_of(self._class_name), decision),
            )

    def progress(self) -> Progress:
        """See `Control.progress`."""
        return self._run.progress()

    def summary(self) -> RunSummary:
        """See `Control.summary`."""
        return self._run.summary()

    def choose_class(self, name: str) -> None:
        """See `Control.choose_class`.

        Raises:
            FrameError: The bundle does not have the class, or the class's region of interest does not suit the frames.
        """
        with self._changing:
            classes = self._detector.bundle.manifest.classes
            if name not in classes:
                raise FrameError(f"unknown class '{name}': this bundle has {', '.join(classes)}")
            if name != self._class_name:
                self._check_region(self._detector.rules.settings, name)
                self._class_name = name
                self._apply()

    def choose_thresholds(self, *, image: float | None = None, pixel: float | None = None) -> None:
        """See `Control.choose_thresholds`."""
        with self._changing:
            chosen = Decision(threshold=image, pixel_threshold=pixel)
            self._detector.rules.decide_by(self._detector.rules.settings.choosing(self._class_name, chosen))

    def save_thresholds(self) -> str:
        """See `Control.save_thresholds`."""
        with self._changing:
            if not self._references.saved(self._class_name):
                raise SettingsError(
                    f"the memory of {self._class_name} is not the one in {self._detector.bundle.root}, and its "
                    "thresholds belong to it: save the memory, which saves them too, or undo its change"
                )
            wanted = self._detector.thresholds_of(self._class_name)
            saved = self._saved()
            if saved.thresholds(self._class_name) == (wanted.image, wanted.pixel):
                return f"{saved.place(self._class_name)} (unchanged)"
            place = save(saved, self._class_name, wanted)
            if self._saved().thresholds(self._class_name) != (wanted.image, wanted.pixel):
                raise SettingsError(f"{place}: the thresholds were written, but something else overrides them")
            return str(place)

    def add_source(self, source: Source) -> None:
        """See `Control.add_source`."""
        with self._changing:
            there, why = self._run.members, self._run.closed_to_sources
            if why is None and not source.live:
                why = "only live sources join a run"
            elif why is None and len(there) >= MOST_SOURCES:
                why = f"a run has at most {MOST_SOURCES} sources, removed ones included: start it again"
            elif why is None and source.name in [counts.source.name for counts in there]:
                why = "the run has, or had, a source of this name: choose another one"
            if why is not None:
                raise SourceError(f"{source.name} cannot join: {why}")
            self._run.add_source(source)
        log.info("%s has joined the run", source.name)

    def remove_source(self, name: str) -> None:
        """See `Control.remove_source`."""
        with self._changing:
            there = list(enumerate(self._run.members))
            found = [n for n, counts in there if counts.source.name == name and not counts.removed]
            if not found:
                raise SourceError(f"{name}: the run has no such source")
            if [n for n, counts in there if not (counts.ended or counts.removed)] in (found, []):
                raise SourceError(f"{name} is the only source that delivers: end the run instead")
            self._run.remove_source(found[0])
        log.info("%s was taken out of the run", name)

    def region(self) -> RegionOfInterest | None:
        """See `Control.region`."""
        with self._changing:
            return self._detector.rules.settings.decision(self._class_name).roi

    def choose_region(self, region: RegionOfInterest | None) -> None:
        """See `Control.choose_region`."""
        wanted = region or RegionOfInterest("the whole image")
        with self._changing:
            chosen = self._detector.rules.settings.choosing(self._class_name, Decision(roi=wanted))
            self._check_region(chosen, self._class_name)
            self._detector.rules.decide_by(chosen)

    def save_region(self) -> str:
        """See `Control.save_region`."""
        with self._changing:
            wanted = self.region()
            place = save_region(self._saved(), self._class_name, wanted)
            found = self._saved().settings.decision(self._class_name).roi
            if (found and found.digest()) != (wanted and wanted.digest()):
                raise SettingsError(f"{place}: the region was written, but something else overrides it")
            return str(place)

    def add_reference(
        self, image: Image | None = None, *, source: str | None = None, class_name: str | None = None
    ) -> MemoryCount:
        """See `Control.add_reference`."""
        name = class_name or self._class_name
        if image is not None:
            frame, called = self._detector.prepare(image, name), FROM_OUTSIDE
        else:
            latest = self._run.latest(source)
            frame, called = latest.prepared, latest.name
        first = self._references.count(name).references == 0
        count = self._references.add(called, frame, name)
        if first:
            self._forget_choice(name)
        log.info("%s is a reference of %s, which has %d now", called, name, count.references)
        return count

    def undo_reference(self, class_name: str | None = None) -> MemoryCount:
        """See `Control.undo_reference`."""
        return self._references.undo(class_name or self._class_name)

    def reset_memory(self, class_name: str | None = None) -> MemoryCount:
        """See `Control.reset_memory`."""
        name = class_name or self._class_name
        count = self._references.reset(name)
        self._forget_choice(name)
        return count

    def save_memory(self, output: Path | None = None, class_name: str | None = None) -> str:
        """See `Control.save_memory`."""
        name = class_name or self._class_name
        place = self._references.save(name, output)
        log.info("the memory of %s is saved in %s", name, place)
        return str(place)

    def use_memory(self, class_name: str, memory: ReferenceMemory, thresholds: Thresholds) -> None:
        """Scores a class by a memory that was made of frames of this stream, from the next frame on.

        Raises:
            MemoryFileError: The memory was made for another model, or for other tiles.
        """
        self._references.use(class_name, memory, thresholds)
        self._forget_choice(class_name)

    def _forget_choice(self, class_name: str) -> None:
        """Thresholds chosen by hand for zero-shot scores are none for those by a memory, which have another scale."""
        with self._changing:
            self._detector.rules.decide_by(self._detector.rules.settings.without_choice(class_name))

    def pause(self) -> None:
        """See `Control.pause`."""
        self._run.pause()

    def resume(self) -> None:
        """See `Control.resume`."""
        self._run.resume()

    def reload(self) -> bool:
        """Reads settings, region of interest, and the bundle's thresholds and memories again, and decides by them.

        A memory that was made while the stream ran stays, with its thresholds, until the bundle has another one. If the
        settings are invalid, the stream logs one warning and goes on with those that it has. Each
        frame gets its verdict and its alarm by the same settings, those before or the new ones.

        Returns:
            Whether the stream uses the new ones.
        """
        with self._changing:
            before = self._memories()
            try:
                saved = self._saved()
                self._check_region(saved.settings, self._class_name)
                with self._run.changing():
                    self._detector.rules.decide_by(saved.settings, saved.bundle)
                    self._apply()
            except KanoclipError as error:
                log.warning("%s; the settings before stay in use", error)
                return False
            except Exception as error:  # whatever a file holds: an inspection that runs does not end by it
                log.warning("unexpected %s: %s; the settings before stay in use", type(error).__name__, one_line(error))
                return False
            log.info("settings read again")
            for name, memory in self._memories().items():
                if memory is not before[name]:
                    what = "zero-shot" if memory is None else f"by a memory of {len(memory.names)} references"
                    log.info("%s is scored %s now", name, what)
            return True

    def _memories(self) -> dict[str, ReferenceMemory | None]:
        return {name: self._detector.rules.memory_of(name) for name in self._detector.bundle.manifest.classes}

    def _saved(self) -> Saved:
        return self._read(self._detector.bundle.reread())

    def _apply(self) -> None:
        rule = self._detector.rules.settings.decision(self._class_name).alarm or EVERY_FRAME
        self._run.apply(Criteria(self._class_name, rule))

    def _check_region(self, settings: Settings, class_name: str) -> None:
        """Refuses a region of interest that does not suit the present frames: it would end the run."""
        roi = settings.decision(class_name).roi
        if roi is not None:
            for height, width in self._run.sizes():
                roi.check_frame(height, width)
