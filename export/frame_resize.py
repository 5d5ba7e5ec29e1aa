"""The runtime's resize as two constant matrices, so that a GPU does it inside the graph.

`runtime.detect.preprocess.resize` stretches each axis by itself: `rows @ frame @ columns.T` is the same image but for
the rounding to whole values, which OpenCV does after every step and this once, at the end. An antialiased ONNX
Resize would be another rule.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.detect.reference.smoothing import Matrix, bilinear_matrix

DRIFT_BOUND = 1.0
"""Of 255: what the graph's resize may differ from the runtime's in any pixel of the gate's images."""

HALVING_BIAS = 0.125
"""Rounding means over 2x2 whole values up from .5, as OpenCV does, makes an image brighter by this on average."""


def resize_matrices(source: tuple[int, int], target: tuple[int, int]) -> tuple[Matrix, Matrix, float]:
    """Matrices for both axes, by the rule of `resize`.

    Args:
        source: (height, width) of the camera's frame.
        target: (height, width) of the model.

    Returns:
        Rows [target height, source height], columns [target width, source width], each row of which sums to 1, and what
        to add before the result is rounded to whole values.
    """
    current, matrices, bias = source, [np.eye(side) for side in source], 0.0
    while all(side >= 2 * wanted for side, wanted in zip(current, target, strict=True)):
        halved = (current[0] // 2, current[1] // 2)
        matrices = [_area(a, b) @ matrix for a, b, matrix in zip(current, halved, matrices, strict=True)]
        current, bias = halved, bias + HALVING_BIAS
    steps = []
    for side, wanted, matrix in zip(current, target, matrices, strict=True):
        steps.append((_area(side, wanted) if side > wanted else bilinear_matrix(wanted, side)) @ matrix)
    return steps[0], steps[1], bias


class FrameResize:
    """The resize in float64, for what the graph is compared with."""

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        """From (height, width) `source` to `target`."""
        self.target = target
        rows, columns, self.bias = resize_matrices(source, target)
        self.rows, self.columns = torch.from_numpy(rows), torch.from_numpy(columns)

    def __call__(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 [B, H, W, 3] -> float32 [B, h, w, 3], whole values in 0 to 255."""
        channels = torch.from_numpy(frames).double().permute(0, 3, 1, 2)
        return (self.rows @ channels @ self.columns.T + self.bias).round().permute(0, 2, 3, 1).float()

    def drift(self, frames: npt.NDArray[np.uint8]) -> float:
        """Largest difference from the runtime's resize over all pixels, of 255."""
        mine = self(frames).numpy()
        theirs = np.stack([resize(frame, *self.target) for frame in frames])
        return float(np.abs(mine - theirs).max())


def _area(source: int, target: int) -> Matrix:
    """INTER_AREA, shrinking: each output is the mean over the pixels that it covers, in part or whole."""
    scale = source / target
    starts = np.arange(target)[:, None] * scale
    pixels = np.arange(source)[None, :]
    covered = np.minimum(starts + scale, pixels + 1) - np.maximum(starts, pixels)
    matrix: Matrix = np.clip(covered, 0, None)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix
