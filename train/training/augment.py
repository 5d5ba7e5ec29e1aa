"""Changes of an image and its mask that leave its label as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.types import Image

Mask = npt.NDArray[np.uint8]

CONTRAST = (0.8, 1.25)
BRIGHTNESS = 25.0


def augment(frame: Image, mask: Mask, seed: tuple[int, int, int]) -> tuple[Image, Mask]:
    """A random flip and quarter turns of both, and a change of the image's contrast and brightness.

    Args:
        frame: uint8 [H, W, 3]; quarter turns are left out when it is not square.
        mask: uint8 [H, W].
        seed: (seed of the run, epoch, index of the image): the same always gives the same change.

    Returns:
        New contiguous arrays of the same shapes.
    """
    rng = np.random.default_rng(seed)
    turns = int(rng.integers(4)) if frame.shape[0] == frame.shape[1] else 2 * int(rng.integers(2))
    flip = bool(rng.integers(2))
    factor, shift = float(rng.uniform(*CONTRAST)), float(rng.uniform(-BRIGHTNESS, BRIGHTNESS))
    turned, turned_mask = np.rot90(frame, turns), np.rot90(mask, turns)
    if flip:
        turned, turned_mask = turned[:, ::-1], turned_mask[:, ::-1]
    changed = (turned.astype(np.float32) - 128) * factor + 128 + shift
    # A turned array keeps its order through arithmetic: both are laid out anew.
    image = np.ascontiguousarray(np.clip(changed.round(), 0, 255), dtype=np.uint8)
    return image, np.ascontiguousarray(turned_mask)
