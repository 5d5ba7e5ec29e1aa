"""From what a user writes to a source."""

from __future__ import annotations

import glob
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.sources.camera import CameraSource, device_index
from kanoclip.runtime.sources.files.folders import IMAGE_SUFFIXES
from kanoclip.runtime.sources.files.images import ImageSource
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.sources.files.video import VIDEO_SUFFIXES, VideoSource
from kanoclip.runtime.sources.files.watched import WATCH, WatchSource
from kanoclip.runtime.sources.gstreamer.csi import CSI, CsiCamera
from kanoclip.runtime.sources.gstreamer.genicam import GENICAM, GenicamCamera
from kanoclip.runtime.sources.gstreamer.gstreamer import GST, GStreamerSource, is_gstreamer, read_pipeline
from kanoclip.runtime.sources.network.reconnecting import STALL_S, ReconnectingSource
from kanoclip.runtime.sources.network.url import UrlSource
from kanoclip.runtime.sources.pattern import TEST, TestPatternSource
from kanoclip.runtime.system.net import is_url, redact_url


def check_camera(spec: str) -> None:
    """Refuses what `open_camera` could not make sense of, without touching any device.

    Raises:
        SourceError: It is no index, device file, CSI or GenICam camera.
    """
    if spec.startswith(CSI):
        CsiCamera.parse(spec)
    elif spec.startswith(GENICAM):
        GenicamCamera.parse(spec)
    elif not (_is_index(spec) or spec.startswith("/dev/")):
        raise SourceError(
            f"{spec!r} is not a camera: give its index N, a device such as /dev/video0, {CSI}N or {GENICAM}NAME"
        )


def open_camera(spec: int | str, stall_s: float | None = STALL_S, reading: Reading = AS_IT_IS) -> Source:
    """Opens a camera.

    Args:
        spec: Its index; or a string with the index, a device file (/dev/video2, /dev/v4l/by-id/...), `csi://N`, or
            `genicam://NAME`.
        stall_s: Seconds that a read may take at most, where that can be set; None for ever.
        reading: How large the frames of a pipeline may be, and whether somebody looks at whole ones.

    Raises:
        SourceError: It is none of these, or cannot be opened.
    """
    if isinstance(spec, int):
        return CameraSource(spec)
    check_camera(spec)
    if is_gstreamer(spec):
        return GStreamerSource(spec, stall_s, reading)
    return CameraSource(int(spec)) if _is_index(spec) else CameraSource(device_index(spec), f"camera {spec}")


def open_source(spec: str, stall_s: float | None = STALL_S, reading: Reading = AS_IT_IS) -> Source:
    """Opens whatever a string stands for.

    Args:
        spec: A URL, a GStreamer pipeline (`gst://...`), a folder to watch (`watch://...`), a test pattern (`test://`),
            a folder, an image file, a video file, or a glob pattern. An existing path wins over a pattern, so that a
            folder called `[1]` can be opened.
        stall_s: As `open_camera` takes it.
        reading: How images are read, and how large they and the frames of a video may be.

    Raises:
        SourceError: It does not exist, or cannot be read.

    Examples:
        >>> source = open_source("test://?fps=25")
        >>> source.live, source.fps
        (True, 25.0)
        >>> open_source("nowhere.png")
        Traceback (most recent call last):
        kanoclip.runtime.errors.SourceError: nowhere.png: no such file or folder
    """
    if is_url(spec):
        return UrlSource(spec, stall_s, reading)
    if is_gstreamer(spec):
        return GStreamerSource(spec, stall_s, reading)
    if spec.startswith(WATCH):
        return WatchSource(spec, reading)
    if spec.startswith(TEST):
        return TestPatternSource(spec)
    if "://" in spec:
        raise SourceError(
            f"{redact_url(spec)}: unknown kind of URL; use rtsp://, http://, https://, {WATCH}FOLDER, {TEST}, "
            f"{GENICAM}NAME, {GST}PIPELINE or a path"
        )
    path = Path(spec).expanduser()
    try:
        if path.is_dir():
            return ImageSource.from_folder(path, reading)
        exists = path.exists()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error  # an OSError's own words quote all of the path
        raise SourceError(f"{redact_url(spec)!r}: not a usable path ({why})") from None
    if exists:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            return ImageSource.from_file(path, reading)
        if suffix in VIDEO_SUFFIXES:
            return VideoSource(path, reading)
        raise SourceError(
            f"{path}: neither an image nor a video by its suffix (images: {' '.join(sorted(IMAGE_SUFFIXES))}; "
            f"videos: {' '.join(sorted(VIDEO_SUFFIXES))})"
        )
    if glob.has_magic(spec):
        return ImageSource.from_glob(str(path), reading)
    raise SourceError(f"{redact_url(spec)}: no such file or folder")


def open_stream(
    spec: str,
    *,
    camera: bool = False,
    reconnect: bool = True,
    wait: bool = False,
    stall_s: float | None = STALL_S,
    reading: Reading = AS_IT_IS,
) -> Source:
    """Opens a camera or source that outlives its being lost, where there is something to lose.

    Args:
        spec: As `open_camera` or `open_source` takes it.
        camera: Whether it is for `open_camera`.
        reconnect: Whether it is opened again when it is lost.
        wait: Whether one that is away at the start is waited for, which is reported; without it, that is an error.
        stall_s: A live source that delivers nothing for so many seconds is lost; None: never.
        reading: As `open_source` takes it.

    Raises:
        SourceRefusedError: It says no, or cannot work here.
        SourceError: It is of no form that is known, or cannot be opened.
    """
    open_it: Callable[[], Source] = partial(open_camera if camera else open_source, spec, stall_s, reading)
    if camera:
        check_camera(spec)
    if not (reconnect and (camera or is_url(spec) or is_gstreamer(spec))):
        return open_it()
    name = _name(spec, camera)
    try:
        opened = open_it()
    except SourceRefusedError:
        raise
    except SourceError:
        if not wait:
            raise
        return ReconnectingSource(open_it, name, stall_s=stall_s)  # its first try says what is wrong
    return ReconnectingSource(open_it, opened.name, opened, stall_s=stall_s) if opened.live else opened


def is_endless(spec: str, *, camera: bool = False) -> bool:
    """Whether a source has no end as far as its string tells, before it is opened: a video by HTTP has one."""
    return camera or is_url(spec) or is_gstreamer(spec) or spec.startswith((WATCH, TEST))


def _name(spec: str, camera: bool) -> str:
    """What an unopened source is called, without credentials."""
    if is_gstreamer(spec):
        return read_pipeline(spec).name
    return f"camera {spec}" if camera else redact_url(spec)


def _is_index(spec: str) -> bool:
    return spec.isascii() and spec.isdecimal() and len(spec) <= 4
