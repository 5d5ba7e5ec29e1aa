"""A stream that implements `Control`, frames, and what an update of the page holds."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from kanoclip.runtime.detect.learning.live import MemoryCount
from kanoclip.runtime.errors import FrameError, SettingsError, SourceError
from kanoclip.runtime.stream.control.progress import Progress, RunSummary, SourceProgress, StageSummary
from kanoclip.runtime.stream.control.protocol import StreamState
from kanoclip.runtime.types import Detection, Frame, Region, Timings

TOKEN = "correct-horse-battery-staple"


class FakeControl:
    """A stream that notes what is asked of it."""

    def __init__(self, *sources):
        self.sources = sources or ("camera 0",)
        self._state = StreamState(
            "line3", "onnxruntime-cpu", self.sources, ("nut", "tile"), "nut", 0.5, 0.4, paused=False, trained=True
        )
        self.saving = "/etc/line3.toml"
        self.roi = None
        self.teacher = SimpleNamespace(revision=0, lessons=SimpleNamespace(state=lambda: None))

        self.becomes(streams=self.sources if len(self.sources) > 1 else ("",))

    def becomes(self, **changes):
        self._state = replace(self._state, **changes)

    def state(self):
        return self._state

    def progress(self):
        rows = tuple(
            SourceProgress(name, 5, 1, 0, 2, 12.5, 0.6, 1.7e9, True, None, away=None, reconnects=3)
            for name in self.sources
        )
        return Progress(5, 1, 0, 2, {"video": 7}, 12.5, 20.0, 30.0, 40.0, 0.6, False, rows)

    def summary(self):
        return RunSummary(5, 1, 0, 2, {"video": 7}, 3.0, (StageSummary("inference", 5, 9.0, 8.0, 11.0, 12.0),), False)

    def choose_class(self, name):
        if name not in self._state.classes:
            raise FrameError(f"{name!r} is not in this bundle")
        self.becomes(class_name=name)

    def choose_thresholds(self, *, image=None, pixel=None):
        for value in (image, pixel):
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"threshold {value} is not in [0, 1]")
        state = self._state
        self.becomes(
            threshold=state.threshold if image is None else image,
            pixel_threshold=state.pixel_threshold if pixel is None else pixel,
        )

    def save_thresholds(self):
        if self.saving is None:
            raise SettingsError("/etc/line3.toml: read-only file system")
        return self.saving

    def add_reference(self, image=None, *, source=None, class_name=None):
        count = self._state.references + 1
        self.becomes(references=count, memory_rows=16 * count, memory_saved=False)
        return MemoryCount(count, 16 * count)

    def undo_reference(self, class_name=None):
        if not self._state.references:
            raise SettingsError("nothing to undo")
        count = self._state.references - 1
        self.becomes(references=count, memory_rows=16 * count)
        return MemoryCount(count, 16 * count)

    def reset_memory(self, class_name=None):
        self.becomes(references=0, memory_rows=0)
        return MemoryCount()

    def save_memory(self, output=None, class_name=None):
        self.becomes(memory_saved=True)
        return self.saving

    def add_source(self, source):
        self.sources = (*self.sources, source.name)
        self.becomes(sources=self.sources, streams=(*self._state.streams, source.name))
        source.close()

    def remove_source(self, name):
        if name not in self.sources:
            raise SourceError(f"{name}: the run has no such source")
        left = [(n, s) for n, s in zip(self.sources, self._state.streams, strict=True) if n != name]
        self.sources = tuple(n for n, _ in left)
        self.becomes(sources=self.sources, streams=tuple(s for _, s in left))

    def region(self):
        return self.roi

    def choose_region(self, region):
        self.roi = region

    def save_region(self):
        if self.saving is None:
            raise SettingsError("/etc/line3.toml: read-only file system")
        return self.saving

    def pause(self):
        self.becomes(paused=True)

    def resume(self):
        self.becomes(paused=False)


def a_frame(index=0, score=0.2, *, stream="", source="camera 0", size=(90, 160), threshold=0.5, alarm=None):
    """A frame and what was found in it: one region whose map is `score`."""
    heat = np.zeros((16, 24), np.float32)
    heat[4:8, 6:12] = score
    regions = (Region(40, 22, 40, 23, score, 900),) if score >= threshold else ()
    frame = Frame(index, source, 1.7e9 + index, np.full((*size, 3), index % 250, np.uint8), 2.0, stream=stream)
    timings = Timings(1.0, 2.0, 3.0, 0.5, 0.5)
    return frame, Detection(score, heat, score >= threshold, threshold, regions, "nut", timings, None, alarm, 0.4)


def unpack(message):
    """An update's header, image and map."""
    (length,) = struct.unpack_from("<I", message)
    head = json.loads(message[4 : 4 + length])
    middle = 4 + length + head.get("picture", {}).get("bytes", 0)
    return head, message[4 + length : middle], message[middle:]
