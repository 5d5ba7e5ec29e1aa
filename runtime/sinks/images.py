"""Annotated images in a folder."""

from __future__ import annotations

from pathlib import Path

import cv2

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.heat_map import Canvas
from kanoclip.runtime.sinks.files import sink_errors
from kanoclip.runtime.system.files.lock import Lock, LockedError
from kanoclip.runtime.system.files.own import mark_folder
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import BadFrame, Detection, Frame

JPEG_QUALITY = 90
LOCK = ".kanoclip-images.lock"
_REMEMBERED = 50_000
"""Names that are remembered, so that `x.bmp` and `x.bmp.jpg` do not end in one file: a folder that is watched has no
last one."""
_WRITABLE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class ImageFolderSink(BaseSink):
    """One annotated image per frame; images already there are overwritten.

    Images from files keep their relative path and name; suffixes other than .jpg, .jpeg and .png get `.jpg` appended.
    Frames of a camera, video or stream become `frame_00000042.jpg`.

    Args:
        folder: Made when missing.
        root: The folder that the source's files lie below; None for a camera, video or stream.
        untrained: The bundle has seeded weights: every image says so.

    Raises:
        SinkError: The folder cannot be made, is the source's own, whose images would be overwritten, or another sink
            writes to it.

    Examples:
        >>> import numpy as np
        >>> from kanoclip.runtime.types import Timings
        >>> image, map = np.zeros((48, 64, 3), np.uint8), np.zeros((8, 8), np.float32)
        >>> frame = Frame(0, "camera 0", 1.7e9, image, 4.0)
        >>> found = Detection(0.25, map, False, 0.5, (), "object", Timings(1.0, 20.0, 1.0, 1.0, 1.0))
        >>> sink = ImageFolderSink(Path("annotated"), None, untrained=False)
        >>> sink.write(frame, found)
        >>> sink.close()
        >>> [path.name for path in Path("annotated").glob("*.jpg")]
        ['frame_00000000.jpg']
    """

    name = "images"
    shows = True

    def __init__(self, folder: Path, root: Path | None, *, untrained: bool) -> None:
        with sink_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if root is not None and folder.samefile(root):
            raise SinkError(f"{folder}: holds the source's own images, which would be overwritten; take another folder")
        with sink_errors(folder):
            try:
                self._lock = Lock(folder / LOCK)
            except LockedError:
                raise SinkError(
                    f"{folder}: another process writes images there; give each a folder of its own"
                ) from None
        try:
            with sink_errors(folder):
                mark_folder(folder)
        except BaseException:
            self._lock.release()
            raise
        self._folder = folder
        self._root = root
        self._untrained = untrained
        self._canvas = Canvas()
        self._taken: dict[Path, None] = {}  # in the order in which they were taken

    def write(self, frame: Frame, detection: Detection) -> None:
        """Draws and writes one image.

        Raises:
            SinkError: It cannot be written.
        """
        target = self._target(frame)
        image = annotate(frame.image, detection, untrained=self._untrained, canvas=self._canvas)
        options = [] if target.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        try:
            ok, data = cv2.imencode(target.suffix, image, options)
        except cv2.error as error:  # a JPEG has at most 65,535 pixels a side
            raise SinkError(f"{target}: cannot be encoded at {image.shape[1]}x{image.shape[0]} pixels") from error
        if not ok:
            raise SinkError(f"{target}: cannot be encoded at {image.shape[1]}x{image.shape[0]} pixels")
        with sink_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, data.tobytes())

    def skip(self, bad: BadFrame) -> None:
        """Writes nothing for an image that could not be read."""

    def close(self) -> None:
        """Lets others write there. Every image is finished as it is written."""
        self._lock.release()

    def _target(self, frame: Frame) -> Path:
        """The file for a frame; never one that this run has just written for another."""
        if self._root is None:
            return self._folder / f"frame_{frame.index:08d}.jpg"
        relative = Path(frame.source).relative_to(self._root)
        if relative.suffix.lower() not in _WRITABLE_SUFFIXES:
            relative = relative.with_name(f"{relative.name}.jpg")
        if relative in self._taken:
            relative = relative.with_name(f"{relative.stem}_{frame.index}{relative.suffix}")
        self._taken[relative] = None
        if len(self._taken) > _REMEMBERED:
            del self._taken[next(iter(self._taken))]
        return self._folder / relative
