"""How a source's images are read, and up to which size."""

from __future__ import annotations

from dataclasses import dataclass

from kanoclip.runtime.sources.files.headers.header import PIXEL_BYTES, Header

MAX_PIXELS = 90_000_000
"""12000 x 7500: with all that is beside it, under 1 GB. A file of a few KB can state a hundred times as many."""
MOST_PIXELS = 1 << 30
"""What OpenCV takes at all."""
_HEAD = 1 << 26
"""Bytes of a file beside its samples: profiles, previews, other pages."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source's images are read.

    Attributes:
        keep_damaged: Damaged JPEGs are scored with a warning, instead of being left out with the reason.
        bit_depth: Bits that samples of 16 really have; None to find out.
        max_pixels: An image, or a frame of a video, of more pixels by its header is left out, or ends the run.
        model_size: (height, width) of the model, where nobody looks at whole frames: a camera that halves them at no
            cost gives at least twice that. None for whole frames.
    """

    keep_damaged: bool = False
    bit_depth: int | None = None
    max_pixels: int = MAX_PIXELS
    model_size: tuple[int, int] | None = None

    @property
    def max_bytes(self) -> int:
        """A file of more bytes is no image of so few pixels."""
        return PIXEL_BYTES * self.max_pixels + _HEAD

    def too_large(self, header: Header) -> str | None:
        """Why an image is not decoded; None where it is."""
        if header.room <= self.max_pixels:
            return None
        what = f"{header.width} x {header.height}" if header.pixels == header.height * header.width else "its parts"
        each, limit = "", self.max_pixels
        if header.pixels <= self.max_pixels:  # fewer fit, since each takes more
            each, limit = f" of {header.depth} bytes each while it is decoded", limit * PIXEL_BYTES // header.depth
        return f"{what}: {header.pixels:,} pixels{each}, over the limit of {limit:,} (--max-pixels)"


AS_IT_IS = Reading()
