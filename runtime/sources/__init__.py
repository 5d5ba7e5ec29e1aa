"""Where frames come from: cameras, video files, pictures and network streams."""

from __future__ import annotations

import glob
from pathlib import Path

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.sources.camera import CameraSource, device_index
from kanoclip.runtime.sources.csi import CSI, CsiCamera
from kanoclip.runtime.sources.gstreamer import GST, GStreamerSource, is_gstreamer
from kanoclip.runtime.sources.images import IMAGE_SUFFIXES, ImageSource
from kanoclip.runtime.sources.stream import UrlSource, is_url, redact_url
from kanoclip.runtime.sources.video import VIDEO_SUFFIXES, VideoSource

__all__ = [
    "CameraSource",
    "GStreamerSource",
    "ImageSource",
    "Source",
    "UrlSource",
    "VideoSource",
    "check_camera",
    "open_camera",
    "open_source",
    "redact_url",
]


def check_camera(spec: str) -> None:
    """Refuses what `open_camera` could not make sense of, without touching any device.

    Raises:
        SourceError: It is no index, device file or CSI camera.
    """
    if spec.startswith(CSI):
        CsiCamera.parse(spec)
    elif not (_is_index(spec) or spec.startswith("/dev/")):
        raise SourceError(f"{spec!r} is not a camera: give its index N, a device such as /dev/video0, or {CSI}N")


def open_camera(spec: int | str) -> Source:
    """Opens a camera.

    Args:
        spec: Its index; or a string with the index, a device file (/dev/video2, /dev/v4l/by-id/...), or `csi://N`.

    Raises:
        SourceError: It is none of these, or cannot be opened.
    """
    if isinstance(spec, int):
        return CameraSource(spec)
    check_camera(spec)
    if spec.startswith(CSI):
        return GStreamerSource(spec)
    return CameraSource(int(spec)) if _is_index(spec) else CameraSource(device_index(spec), f"camera {spec}")


def open_source(spec: str) -> Source:
    """Opens whatever a string stands for.

    Args:
        spec: A URL, a GStreamer pipeline (`gst://...`), a folder, a picture file, a video file, or a glob pattern. An
            existing path wins over a pattern, so that a folder called `[1]` can be opened.

    Raises:
        SourceError: It does not exist, or cannot be read.
    """
    if is_url(spec):
        return UrlSource(spec)
    if is_gstreamer(spec):
        return GStreamerSource(spec)
    if "://" in spec:
        raise SourceError(
            f"{redact_url(spec)}: unknown kind of URL; use rtsp://, http://, https://, {GST}PIPELINE or a path"
        )
    path = Path(spec).expanduser()
    try:
        if path.is_dir():
            return ImageSource.from_folder(path)
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise SourceError(f"{spec!r}: not a usable path ({error})") from error
    if exists:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return ImageSource.from_file(path)
        if suffix in VIDEO_SUFFIXES:
            return VideoSource(path)
        raise SourceError(
            f"{path}: neither a picture nor a video by its suffix (pictures: {' '.join(sorted(IMAGE_SUFFIXES))}; "
            f"videos: {' '.join(sorted(VIDEO_SUFFIXES))})"
        )
    if glob.has_magic(spec):
        return ImageSource.from_glob(str(path))
    raise SourceError(f"{spec}: no such file or folder")


def _is_index(spec: str) -> bool:
    return spec.isascii() and spec.isdecimal() and len(spec) <= 4
