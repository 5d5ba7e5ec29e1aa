"""A clock that is set by hand, and a stream that implements `Control`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kanoclip.runtime.stream.control.progress import Progress, SourceProgress
from kanoclip.runtime.stream.control.protocol import StreamState


class Clock:
    """Seconds that pass when told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


class Stream:
    """What health checks see of a stream: its state and its counts, changed by hand."""

    def __init__(self, *names):
        empty = {"frames": 0, "anomalous": 0, "skipped": 0, "dropped": 0, "fps": 0.0, "last_score": None}
        sources = tuple(SourceProgress(name=name, **empty, last_at=None, alarm=None, error=None) for name in names)
        self.now = Progress(
            **empty, sink_dropped={}, latency_p50=0.0, latency_p95=0.0, latency_p99=0.0, sources=sources
        )
        self._state = StreamState(
            "line3", "onnxruntime-cpu", names, ("object",), "object", 0.5, 0.5, paused=False, trained=True
        )

    def state(self):
        return replace(self._state, paused=self.now.paused)

    def progress(self):
        return self.now

    def becomes(self, **changes):
        self.now = replace(self.now, **changes)

    def delivers(self, count=1, judged=None, number=0, dropped=0):
        """A source delivers, and so many of that are scored and dropped."""
        sources = list(self.now.sources)
        source = sources[number]
        sources[number] = replace(source, delivered=source.delivered + count, last_frame_age_s=0.0)
        judged = count if judged is None else judged
        self.becomes(sources=tuple(sources), frames=self.now.frames + judged, dropped=self.now.dropped + dropped)

    def source(self, number=0, **changes):
        sources = list(self.now.sources)
        sources[number] = replace(sources[number], **changes)
        self.becomes(sources=tuple(sources))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make_stream():
    return Stream
