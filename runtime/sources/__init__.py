"""Where frames come from: cameras, video files, pictures and network streams."""

from __future__ import annotations

from kanoclip.runtime.sources.base import Interruptible, Source
from kanoclip.runtime.sources.camera import CameraSource
from kanoclip.runtime.sources.gstreamer import GStreamerSource
from kanoclip.runtime.sources.images import ImageSource
from kanoclip.runtime.sources.opening import check_camera, is_endless, open_camera, open_source, open_stream
from kanoclip.runtime.sources.pattern import TestPatternSource
from kanoclip.runtime.sources.reconnecting import ReconnectingSource, SourceHealth
from kanoclip.runtime.sources.stream import UrlSource, redact_url
from kanoclip.runtime.sources.video import VideoSource
from kanoclip.runtime.sources.watched import WatchSource

__all__ = [
    "CameraSource",
    "GStreamerSource",
    "ImageSource",
    "Interruptible",
    "ReconnectingSource",
    "Source",
    "SourceHealth",
    "TestPatternSource",
    "UrlSource",
    "VideoSource",
    "WatchSource",
    "check_camera",
    "is_endless",
    "open_camera",
    "open_source",
    "open_stream",
    "redact_url",
]
