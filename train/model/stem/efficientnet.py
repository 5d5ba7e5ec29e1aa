"""EfficientNet-Lite's trunk as plain convolutions: batch norm folded into them, stages read out, frozen.

Tan and Le 2019; the Lite variants (2020) have no squeeze-and-excitation and ReLU6 throughout, for int8's sake.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch.nn.functional as F
from torch import Tensor, nn

_EXPANSION = 6
_FIRST = 32
"""Channels of the first convolution, the same in every variant."""
_GROUPS = ((3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3), (5, 1, 112, 3), (5, 2, 192, 4))
"""(kernel, stride, channels, blocks) of each group of Lite0; the seventh group, of 320 channels, is never read."""


class Variant(Enum):
    """A published EfficientNet-Lite; its value is (width, depth), the factors over Lite0."""

    LITE0 = (1.0, 1.0)
    LITE1 = (1.0, 1.1)
    LITE2 = (1.1, 1.2)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the stages that `Trunk` gives: strides 4, 8, 16, 16 and 32."""
        return tuple(_width(channels, self.value[0]) for _, _, channels, _ in _GROUPS[1:])


@dataclass(frozen=True)
class _Shape:
    """One convolution: channels in and out, kernel, stride, depthwise or not, ReLU6 after it or not."""

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    relu: bool = True


class FoldedConv(nn.Module):
    """A convolution with its batch norm folded in, TensorFlow's `SAME` padding, and ReLU6 where the network has one."""

    def __init__(self, shape: _Shape) -> None:
        """Builds it with torch's first values."""
        super().__init__()
        groups = shape.inputs if shape.depthwise else 1
        # For an even input and stride 2, SAME pads one pixel less in front than behind.
        missing = shape.kernel - shape.stride
        before = missing // 2
        self.pad = (before, missing - before, before, missing - before)
        even = self.pad[0] == self.pad[1]
        self.conv = nn.Conv2d(
            shape.inputs, shape.outputs, shape.kernel, shape.stride, before if even else 0, groups=groups
        )
        self.pads_apart, self.relu = not even, shape.relu

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], H and W even where the stride is 2 -> [B, C', H / stride, W / stride]."""
        x = self.conv(F.pad(x, self.pad) if self.pads_apart else x)
        return F.relu6(x) if self.relu else x


class InvertedResidual(nn.Module):
    """Expand, filter in depth, project; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        """Builds one block; an expansion of 1 leaves the first convolution out."""
        super().__init__()
        inner = inputs * expansion
        shapes = [_Shape(inputs, inner)] if expansion > 1 else []
        shapes += [_Shape(inner, inner, kernel, stride, depthwise=True), _Shape(inner, outputs, relu=False)]
        self.layers = nn.Sequential(*(FoldedConv(shape) for shape in shapes))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class Trunk(nn.Module):
    """The network up to stride 32, its classifier's last group and head left out.

    Attributes:
        channels: Of the five stages.
    """

    def __init__(self, variant: Variant) -> None:
        """Builds it with torch's first values; `kanoclip.train.nano.stem_weights` reads the published ones."""
        super().__init__()
        width, depth = variant.value
        self.channels = variant.channels
        self.first = FoldedConv(_Shape(3, _FIRST, 3, 2))
        groups, inputs = [], _FIRST
        for number, (kernel, stride, channels, blocks) in enumerate(_GROUPS):
            outputs = _width(channels, width)
            # The first group keeps its number of blocks in every variant.
            count = math.ceil(blocks * depth) if number else blocks
            parts = [
                InvertedResidual(
                    inputs if block == 0 else outputs,
                    outputs,
                    kernel,
                    stride if block == 0 else 1,
                    _EXPANSION if number else 1,
                )
                for block in range(count)
            ]
            groups.append(nn.Sequential(*parts))
            inputs = outputs
        self.groups = nn.ModuleList(groups)
        self.requires_grad_(False)

    def convolutions(self) -> list[FoldedConv]:
        """All of them in the order in which the published file has them."""
        return [module for module in self.modules() if isinstance(module, FoldedConv)]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The stages.

        Args:
            pixels: (RGB - 127) / 128, [B, 3, H, W], H and W multiples of 32.

        Returns:
            Stages of strides 4, 8, 16, 16 and 32, each [B, C, H / stride, W / stride], with no ReLU at their end.
        """
        x = self.first(pixels)
        stages = []
        for group in self.groups:
            x = group(x)
            stages.append(x)
        return tuple(stages[1:])


def _width(channels: int, factor: float) -> int:
    """Scaled and rounded to a multiple of 8, as EfficientNet does it, never by more than a tenth down."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded
