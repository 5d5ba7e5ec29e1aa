"""The files that a frame passes between source and sink: those that docs/design-notes.md lists, and few lines."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.sinks import BaseSink, SinkFactory
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy
from kanoclip.runtime.types import Detection, Frame, Timings

ROOT = Path(__file__).parents[3]
STARTS_THEM = "runtime/stream/pipeline.py"
"""In the list, but no frame comes by: it connects the others."""
MOST_FILES, MOST_LINES, MOST_IN_ALL = 7, 950, 1040
"""Lines of the files that a frame passes, and with the one that starts them."""


def listed():
    """Path -> lines, as the page's table has them."""
    page = (ROOT / "docs/design-notes.md").read_text(encoding="utf-8")
    section = page[page.index("## From a frame to its verdict") :]
    section = section[: section.index("\n## ")]
    return {path: int(lines) for path, lines in re.findall(r"^\| `(runtime/\S+\.py)` \| (\d+) \|", section, re.M)}


class Flow(BaseSource, BaseSink):
    """A source that waits until its sinks have its last frame; calls are noted between its first and that one."""

    name, fps, root, count, shows, live = "flow", None, None, 12, False, False

    def __init__(self, written):
        self.written, self.passing = written, threading.Event()

    def frames(self):
        for index in range(self.count):
            yield Frame(index, "flow", 1.7e9, np.zeros((4, 4, 3), np.uint8), 1.0)
            self.passing.set()
        assert self.written.acquire(timeout=20) and self.written.acquire(timeout=20)
        self.passing.clear()

    def close(self):
        pass


class Last(BaseSink):
    shows = False

    def __init__(self, name, written):
        self.name, self.written = name, written

    def write(self, frame, detection):
        if frame.index == Flow.count - 1:
            self.written.release()

    def skip(self, bad):
        raise AssertionError(bad)

    def close(self):
        pass


class Plain:
    def prepare(self, frame, class_name=None, size=None):
        return Prepared(frame, *frame.shape[:2], 1.0, 1.0)

    def submit(self, frames, class_name=None):
        return lambda: self.infer(frames, class_name)

    def infer(self, frames, class_name):
        timings = Timings(1.0, 1.0, 1.0, 1.0, 1.0)
        return [Detection(0.7, np.zeros((2, 2), np.float32), True, 0.5, (), "nut", timings) for _ in frames]


@pytest.mark.timeout(60)
def test_a_frame_passes_the_files_that_are_listed():
    written = threading.Semaphore(0)
    source, passed = Flow(written), set()

    def note(frame, event, arg):
        if source.passing.is_set():
            passed.add(frame.f_code.co_filename)

    sinks = [Last("before", written), SinkFactory(lambda: Last("factory", written), "factory", False)]
    pipeline = Pipeline(source, Plain(), sinks, PipelineConfig(Policy.WAIT, workers=2, sink_capacity=2))
    threading.settrace(note)
    try:
        pipeline.run()
    finally:
        threading.settrace(None)
    inside = {str(Path(name).resolve().relative_to(ROOT)) for name in passed if str(ROOT) in str(Path(name).resolve())}
    between = {name for name in inside if name.startswith(("runtime/stream/", "runtime/system/"))}
    assert between == listed().keys() - {STARTS_THEM}


def test_the_list_can_be_read_in_one_sitting():
    lines = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in listed()}
    assert listed() == lines
    assert len(lines) <= MOST_FILES and sum(lines.values()) < MOST_IN_ALL
    assert sum(lines.values()) - lines[STARTS_THEM] < MOST_LINES
