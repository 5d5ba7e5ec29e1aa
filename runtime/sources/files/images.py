"""Image files: one, a folder or a glob."""

from __future__ import annotations

import os
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.files.decode import decode
from kanoclip.runtime.sources.files.folders import IMAGE_SUFFIXES, images_in, images_matching, natural_key
from kanoclip.runtime.sources.files.headers.header import size_of
from kanoclip.runtime.sources.files.headers.parts import JPEG, PNG, segments
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.system.files.regular import read_regular
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.types import BadFrame, Frame, Image

MOST_READERS = 4
LARGEST_SCALE = 8


class ImageSource(BaseSource):
    """Images in a fixed order, read ahead by some threads.

    Args:
        paths: Files, in the order wanted; at least one.
        root: A folder that all of them lie below.
        name: What to call the source.
        reading: What becomes of damaged, of 16-bit and of large images.

    Attributes:
        reduced_for: (height, width) of the model for which JPEGs are decoded at a smaller scale, see `read_reduced`;
            None, as at the start, to decode all of them in full.
        readers: Threads that read and decode.
        reading: As it was given.

    Examples:
        >>> import cv2
        >>> cv2.imwrite("part.png", np.zeros((48, 64, 3), np.uint8))
        True
        >>> source = ImageSource.from_file(Path("part.png"))
        >>> [(frame.index, frame.image.shape) for frame in source.frames()]
        [(0, (48, 64, 3))]
        >>> source.close()
    """

    live = False
    fps: float | None = None

    def __init__(self, paths: Sequence[Path], root: Path, name: str, reading: Reading = AS_IT_IS) -> None:
        self.reduced_for: tuple[int, int] | None = None
        self.reading = reading
        self.readers = min(own_cores(), MOST_READERS)
        self.name = name
        self.root: Path | None = root
        self.count: int | None = len(paths)
        self.paths = paths

    @classmethod
    def from_file(cls, path: Path, reading: Reading = AS_IT_IS) -> ImageSource:
        """One image file."""
        return cls([path], path.parent, str(path), reading)

    @classmethod
    def from_folder(cls, folder: Path, reading: Reading = AS_IT_IS) -> ImageSource:
        """All images below a folder, in natural order.

        Masks of an MVTec-layout data set are left out, and what commands wrote.

        Raises:
            SourceError: There is none, or the folder cannot be listed.
        """
        paths = [Path(path) for path in images_in(str(folder))]
        if not paths:
            raise SourceError(f"{folder}: no images in this folder (looked for {_suffixes()})")
        return cls(sorted(paths, key=natural_key), folder, str(folder), reading)

    @classmethod
    def from_glob(cls, pattern: str, reading: Reading = AS_IT_IS) -> ImageSource:
        """Images that match a pattern (`**` crosses folders), in natural order, without what commands wrote.

        Raises:
            SourceError: Nothing matches.
        """
        paths = [Path(path) for path in images_matching(pattern)]
        if not paths:
            raise SourceError(f"{pattern}: no image matches this pattern (looked for {_suffixes()})")
        root = Path(os.path.commonpath([p.parent for p in paths])) if len(paths) > 1 else paths[0].parent
        return cls(sorted(paths, key=natural_key), root, pattern, reading)

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields each image, or a `BadFrame` for one that cannot be read."""
        if self.readers == 1 or len(self.paths) == 1:
            yield from (self._read(index, path) for index, path in enumerate(self.paths))
            return
        todo = enumerate(self.paths)
        with ThreadPoolExecutor(self.readers, thread_name_prefix="kanoclip-reader") as pool:
            ahead: deque[Future[Frame | BadFrame]] = deque()
            try:
                while True:
                    # No more than one image a thread: large ones take much memory.
                    for index, path in islice(todo, self.readers - len(ahead)):
                        ahead.append(pool.submit(self._read, index, path, elsewhere=True))
                    if not ahead:
                        return
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def _read(self, index: int, path: Path, *, elsewhere: bool = False) -> Frame | BadFrame:
        started, started_cpu, captured_at = time.perf_counter(), time.thread_time(), time.time()
        read = (
            read_image(path, self.reading)
            if self.reduced_for is None
            else read_reduced(path, *self.reduced_for, self.reading)
        )
        if isinstance(read, str):
            return BadFrame(index, str(path), read)
        image, full_size = (read, None) if isinstance(read, np.ndarray) else read
        spent = (time.perf_counter() - started) * 1e3
        cpu = (time.thread_time() - started_cpu) * 1e3 if elsewhere else 0.0
        return Frame(index, str(path), captured_at, image, spent, cpu, full_size)

    def close(self) -> None:
        """Files are closed as soon as they are read: nothing to release."""


def read_image(path: Path, reading: Reading = AS_IT_IS) -> Image | str:
    """Reads an image file.

    Returns:
        uint8 [H, W, 3] BGR, turned upright by its EXIF orientation; or the reason why it cannot be read.
    """
    raw = _content(path, reading)
    return raw if isinstance(raw, str) else decode(raw, path=path, reading=reading)


def read_reduced(
    path: Path, height: int, width: int, reading: Reading = AS_IT_IS
) -> tuple[Image, tuple[int, int] | None] | str:
    """Reads an image file; a large JPEG at 1/2, 1/4 or 1/8 of its scale, which saves most of its decoding.

    At least twice the model's size is left, since the last halving decides the most: what the decoder leaves out of a
    block is not quite the mean over its pixels. Scores differ by that (docs/measurements.md).

    Args:
        path: The file.
        height: Rows of the model, or of all tiles together.
        width: Columns of the model, or of all tiles together.
        reading: What becomes of damaged images.

    Returns:
        The image as `read_image` gives it, smaller where it could be, and then (height, width) of the whole; or the
        reason why it cannot be read.
    """
    raw = _content(path, reading)
    if isinstance(raw, str):
        return raw
    size = size_of(raw) if raw.startswith(JPEG) else None
    scale = 1
    while size is not None and scale < LARGEST_SCALE and size[0] >= 4 * scale * height and size[1] >= 4 * scale * width:
        scale *= 2
    image = decode(raw, scale, path, reading)
    return image if isinstance(image, str) else (image, size if scale > 1 else None)


def _content(path: Path, reading: Reading) -> bytes | str:
    """A file's bytes, or the reason why it cannot be read."""
    try:
        raw = read_regular(path, reading.max_bytes)
    except OSError as error:
        return error.strerror or "cannot be read"
    return too_long(reading) if raw is None else _why_not_whole(raw) or raw


def too_long(reading: Reading) -> str:
    """The reason why a file of too many bytes is not read."""
    return (
        f"the file is over {reading.max_bytes >> 20:,} MiB, more than {reading.max_pixels:,} pixels take (--max-pixels)"
    )


def decode_image(raw: bytes, path: Path | None = None, reading: Reading = AS_IT_IS) -> Image | str:
    """What `read_image` gives, of a file's bytes; `path` is where they came from, if from this machine."""
    return _why_not_whole(raw) or decode(raw, path=path, reading=reading)


def _why_not_whole(raw: bytes) -> str | None:
    if not raw:
        return "the file is empty"
    # Some OpenCV versions paint the missing rows grey and call it a success: the detector must not score that.
    return "the file is cut short" if _is_cut_short(raw) else None


def _is_cut_short(raw: bytes) -> bool:
    """Whether a JPEG or PNG file lacks its end marker."""
    if raw.startswith(PNG):
        return b"IEND" not in raw
    if not raw.startswith(JPEG):
        return False
    # The end marker of an EXIF thumbnail must not count: hop over the header's segments by their lengths.
    position = 2
    try:
        for _, _, end in segments(raw):
            position = end
    except (struct.error, IndexError):
        return True
    return raw.rfind(b"\xff\xd9") < position  # from the end, where the marker of a whole file is


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))
