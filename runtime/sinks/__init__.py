"""Where detections go: annotated images and videos, JSON lines, a window."""

from __future__ import annotations

from kanoclip.runtime.sinks.base import BaseSink, ScreenSink, Sink, SinkFactory
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.images import ImageFolderSink
from kanoclip.runtime.sinks.jsonl import JsonLinesSink
from kanoclip.runtime.sinks.video.video import VideoSink
from kanoclip.runtime.sinks.window import WindowSink, has_display

__all__ = [
    "BaseSink",
    "ImageFolderSink",
    "JsonLinesSink",
    "ScreenSink",
    "Sink",
    "SinkFactory",
    "VideoSink",
    "WindowSink",
    "annotate",
    "has_display",
]
