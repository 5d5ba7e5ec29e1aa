"""Where frames come from: cameras, video files, pictures and network streams."""

from __future__ import annotations

import glob
from pathlib import Path

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.sources.camera import CameraSource
from kanoclip.runtime.sources.images import IMAGE_SUFFIXES, ImageSource
from kanoclip.runtime.sources.stream import UrlSource, is_url, redact_url
from kanoclip.runtime.sources.video import VIDEO_SUFFIXES, VideoSource

__all__ = [
    "CameraSource",
    "ImageSource",
    "Source",
    "UrlSource",
    "VideoSource",
    "open_camera",
    "open_source",
    "redact_url",
]


def open_camera(index: int) -> Source:
    """Opens a camera by its index.

    Raises:
        SourceError: It cannot be opened.
    """
    return CameraSource(index)


def open_source(spec: str) -> Source:
    """Opens whatever a string stands for.

    Args:
        spec: A URL, a folder, a picture file, a video file, or a glob pattern. An existing path wins over a pattern,
            so that a folder called `[1]` can be opened.

    Raises:
        SourceError: It does not exist, or cannot be read.
    """
    if is_url(spec):
        return UrlSource(spec)
    if "://" in spec:
        raise SourceError(f"{redact_url(spec)}: unknown kind of URL; use rtsp://, http://, https:// or a path")
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
