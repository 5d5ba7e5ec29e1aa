"""Masks as runs of equal pixels, as COCO writes them: a few numbers instead of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def encode_runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of runs down the columns, one column after the other; the first counts pixels that are not set.

    COCO's uncompressed RLE: with `size` [h, w], `pycocotools.mask.frPyObjects` takes it as it is.

    Args:
        mask: [h, w].
    """
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *lengths] if flat[0] else lengths


def decode_runs(counts: Sequence[int], height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask [height, width] that `encode_runs` took.

    Raises:
        ValueError: The runs do not fill it.
    """
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"runs of {sum(counts)} pixels for a mask of {height}x{width}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(width, height).T)
