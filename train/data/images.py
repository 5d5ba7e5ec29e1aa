"""Reading a dataset's images, as the runtime reads its own."""

from __future__ import annotations

from pathlib import Path

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.sources.files import images
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.types import Image


def read_image(path: Path, reading: Reading = AS_IT_IS) -> Image:
    """Reads an image: grey, 16-bit, palette and transparent ones become 8-bit BGR.

    Args:
        path: The file.
        reading: What becomes of damaged, of 16-bit and of large images.

    Returns:
        uint8 [H, W, 3] BGR, turned upright by its EXIF orientation.

    Raises:
        DataError: It cannot be read or decoded.
    """
    image = images.read_image(path, reading)
    if isinstance(image, str):
        raise DataError(f"cannot read the image {path}: {image}; copy or download it again, or remove it")
    return image
