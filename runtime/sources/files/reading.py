"""How a source's images are read, and up to which size."""

from __future__ import annotations

from dataclasses import dataclass

from kanoclip.runtime.sources.files.headers import Header

MAX_PIXELS = 1 << 27
"""16384 x 8192: 0.4 GB as BGR. A file of a few KB can state a hundred times as many."""
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
        return 8 * self.max_pixels + _HEAD

    def too_large(self, header: Header) -> str | None:
        """Why an image is not decoded; None where it is."""
        if header.room <= self.max_pixels:
            return None
        what = f"{header.width} x {header.height}" if header.room == header.height * header.width else "its parts"
        return f"{what}: {header.room:,} pixels, over the limit of {self.max_pixels:,} (--max-pixels)"


AS_IT_IS = Reading()
