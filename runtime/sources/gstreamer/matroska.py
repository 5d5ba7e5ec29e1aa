"""Raw BGR images out of a Matroska stream, as GStreamer's `matroskamux` writes it into a pipe.

Only what that element writes for one uncompressed track is understood: elements are an id, a size and a body, and of
the bodies just the track's header and the blocks are looked into (RFC 8794 and RFC 9559).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kanoclip.runtime.types import Image

Fill = Callable[[memoryview], int]
"""Fills a buffer from the stream; gives the number of bytes, which is less than the buffer holds only at the end."""

_SEGMENT, _TRACKS, _CLUSTER, _BLOCK_GROUP = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xA0
_BLOCKS = frozenset({0xA3, 0xA1})  # SimpleBlock, and Block inside a BlockGroup: the same body
_ENTERED = frozenset({_SEGMENT, _CLUSTER, _BLOCK_GROUP})
_TRACK_ENTRY, _VIDEO, _WIDTH, _HEIGHT, _FOURCC = 0xAE, 0xE0, 0xB0, 0xBA, 0x2EB524
_CODEC, _DEFAULT_DURATION = 0x86, 0x23E383
_CLUSTER_TIME = 0xE7
_BGR = b"BGR\x18"  # 24 bits

_LONGEST_SIDE = 32768
_LARGEST_OTHER = 1 << 20
"""Bytes of an element that is no image; the real ones take hundreds."""


class StreamFormatError(Exception):
    """The bytes are not such a stream."""


class StreamCutError(Exception):
    """The stream ended inside an element."""


@dataclass(frozen=True)
class Track:
    """What the stream says of its images.

    Attributes:
        width: Pixels.
        height: Pixels.
        fps: Frames per second; None where the stream does not say.
    """

    width: int
    height: int
    fps: float | None


class MatroskaReader:
    """Reads the track's header, then image after image.

    Args:
        fill: Where bytes come from. What it raises goes through.

    Attributes:
        track: What the header says; None before it was read.
        ticks_ms: Time of the image that `next_size` came to, on the pipeline's clock, in milliseconds, which is
            matroskamux's unit.
    """

    def __init__(self, fill: Fill) -> None:
        self._fill = fill
        self.track: Track | None = None
        self.ticks_ms = 0
        self._cluster_ms = 0

    def read_track(self) -> Track | None:
        """Reads up to the track's header.

        Returns:
            The track; None when the stream ended before it.

        Raises:
            StreamFormatError: It is no stream of one BGR track.
            StreamCutError: The stream ended inside an element.
        """
        while (element := self._element()) is not None:
            number, size = element
            if number == _TRACKS:
                self.track = _track(self._body(size))
                return self.track
            if number not in _ENTERED:
                self._body(size)
        return None

    def next_size(self) -> int | None:
        """Reads up to the next image's first byte.

        Returns:
            Bytes that the image takes; None when the stream ended before it.

        Raises:
            StreamFormatError: An image is not of the track's size.
            StreamCutError: The stream ended inside an element.
        """
        while (element := self._element()) is not None:
            number, size = element
            if number in _BLOCKS:
                if size is None or size < 4:
                    raise StreamFormatError("a block without a size")
                head = self._exactly(4)  # number of the one track, time after the cluster's, flags
                self.ticks_ms = self._cluster_ms + int.from_bytes(head[1:3], "big", signed=True)
                return size - 4
            if number == _CLUSTER_TIME:
                self._cluster_ms = int.from_bytes(self._body(size), "big")
            elif number not in _ENTERED:
                self._body(size)
        return None

    def read_image(self, size: int) -> Image:
        """Reads the image that `next_size` came to.

        Args:
            size: What `next_size` gave.

        Returns:
            uint8 [H, W, 3] BGR, in memory of its own.

        Raises:
            StreamFormatError: The bytes are not H rows of W pixels.
            StreamCutError: The stream ended inside the image.
        """
        if self.track is None:
            raise StreamFormatError("an image before the track's header")
        width, height = self.track.width, self.track.height
        stride, rest = divmod(size, height)
        # GStreamer pads the rows of an image to a multiple of 4 bytes.
        if rest or stride not in (3 * width, -(-3 * width // 4) * 4):
            raise StreamFormatError(f"an image of {size} bytes is no {width}x{height} in BGR")
        rows = np.empty((height, stride), np.uint8)
        if self._fill(rows.data.cast("B")) != size:
            raise StreamCutError
        return np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)

    def _element(self) -> tuple[int, int | None] | None:
        """The next element's id and size (None: unknown, to its parent's end); None at the end of the stream."""
        first = bytearray(1)
        if self._fill(memoryview(first)) == 0:
            return None
        length = 9 - first[0].bit_length()  # leading zeros tell it
        if length > 4:
            raise StreamFormatError(f"no element starts with byte {first[0]:#04x}")
        number = int.from_bytes(first + self._exactly(length - 1), "big")
        head = self._exactly(1)
        length = 9 - head[0].bit_length()
        if length > 8:
            raise StreamFormatError("an element with an impossible size")
        size = int.from_bytes(head + self._exactly(length - 1), "big") - (1 << 7 * length)
        unknown = size == (1 << 7 * length) - 1
        if unknown and number not in _ENTERED:
            raise StreamFormatError(f"element {number:#x} has no size")
        return number, None if unknown else size

    def _body(self, size: int | None) -> bytes:
        """The body of an element that is no image."""
        if size is None or size > _LARGEST_OTHER:
            raise StreamFormatError(f"an element of {size} bytes that is no image")
        return bytes(self._exactly(size))

    def _exactly(self, count: int) -> bytearray:
        buffer = bytearray(count)
        if count and self._fill(memoryview(buffer)) != count:
            raise StreamCutError
        return buffer


def _track(body: bytes) -> Track:
    """The one video track of a header."""
    entries = [entry for number, entry in _children(body) if number == _TRACK_ENTRY]
    if len(entries) != 1:
        raise StreamFormatError(f"{len(entries)} tracks instead of one")
    fields = dict(_children(entries[0]))
    video = dict(_children(fields.get(_VIDEO, b"")))
    codec, fourcc = fields.get(_CODEC, b"").rstrip(b"\0"), video.get(_FOURCC)
    if codec != b"V_UNCOMPRESSED" or fourcc != _BGR:
        raise StreamFormatError(f"images in {codec!r} {fourcc!r} instead of uncompressed BGR")
    width, height = (int.from_bytes(video.get(side, b""), "big") for side in (_WIDTH, _HEIGHT))
    if not (1 <= width <= _LONGEST_SIDE and 1 <= height <= _LONGEST_SIDE):
        raise StreamFormatError(f"images of {width}x{height}")
    nanoseconds = int.from_bytes(fields.get(_DEFAULT_DURATION, b""), "big")
    # Whole nanoseconds make 30 fps 30.0000003.
    return Track(width, height, round(1e9 / nanoseconds, 3) if nanoseconds else None)


def _children(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements inside a body."""
    rest = memoryview(body)

    def fill(view: memoryview) -> int:
        nonlocal rest
        count = min(len(view), len(rest))
        view[:count] = rest[:count]
        rest = rest[count:]
        return count

    reader = MatroskaReader(fill)
    while (element := reader._element()) is not None:
        yield element[0], reader._body(element[1])
