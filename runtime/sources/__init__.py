"""Where frames come from: cameras, video files, images and network streams."""

from __future__ import annotations

from kanoclip.runtime.sources.base import BaseSource, Source, SourceHealth
from kanoclip.runtime.sources.camera import CameraSource
from kanoclip.runtime.sources.files.images import ImageSource
from kanoclip.runtime.sources.files.video import VideoSource
from kanoclip.runtime.sources.files.watched import WatchSource
from kanoclip.runtime.sources.gstreamer.gstreamer import GStreamerSource
from kanoclip.runtime.sources.network.reconnecting import ReconnectingSource
from kanoclip.runtime.sources.network.url import UrlSource
from kanoclip.runtime.sources.opening import check_camera, is_endless, open_camera, open_source, open_stream
from kanoclip.runtime.sources.pattern import TestPatternSource

__all__ = [
    "BaseSource",
    "CameraSource",
    "GStreamerSource",
    "ImageSource",
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
]
