"""What the tensors before the quantised layers hold, measured on images, and how weights are rounded by it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from kanoclip.runtime.bundle.manifest.signature import MEMORY_INPUTS
from kanoclip.runtime.engines.inputs import MemoryTensors
from kanoclip.runtime.system.installed import keep_onnxruntime_silent
from kanoclip.runtime.types import Image

POSITIONS = 512
"""Of a convolution in a frame that its moments are taken at, drawn by a seed: all of them would cost minutes."""
WRONG_OPTIMIZERS = ("WeightBiasQuantization",)
"""Of ONNX Runtime (1.32): it quantises a convolution's float16 bias by itself, and the results are wrong then. Whoever
runs an `int8` graph on the CPU has to leave it out; in `int8-cpu` biases are whole numbers already."""
_DAMPING = 0.01
"""Share of the inputs' mean variance that is added to each: few frames do not show all of them independent."""


@dataclass(frozen=True)
class Range:
    """What a tensor held, 0 included.

    Attributes:
        low: Scalar of the tensor's type, which decides that of the scales, and so of the MatMuls.
        high: The same.
    """

    low: npt.NDArray[np.floating[Any]]
    high: npt.NDArray[np.floating[Any]]

    @property
    def largest(self) -> npt.NDArray[np.floating[Any]]:
        """The largest magnitude."""
        return np.asarray(np.maximum(-self.low, self.high), self.low.dtype)


@dataclass(frozen=True)
class Moments:
    """What a convolution's kernel sees.

    Attributes:
        mean: Of each of its inputs, float64 [groups, inputs of a group].
        covariance: Of them, float64 [groups, inputs, inputs].
    """

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


def activation_ranges(
    source: Path,
    model: onnx.ModelProto,
    names: Sequence[str],
    frames: Sequence[Image],
    batch: int,
    report: Callable[[float], None],
) -> dict[str, Range]:
    """For each tensor its smallest and largest value over all frames.

    Nothing is cut off: by the percentile 99.99 nano's maps drifted 1.3 to 2 times as far in int8, and as far in fp8
    (docs/design-notes.md). ONNX Runtime's own calibration keeps every tensor of every frame.

    Args:
        source: The graph.
        model: The same with the types of its tensors.
        names: The tensors.
        frames: uint8 [h, w, 3], BGR, at the graph's size.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Called with the share that is done.
    """
    ranges: dict[str, Range] = {}
    for tensors in _watch(source, model, names, frames, batch, report):
        for name, values in tensors.items():
            known = ranges.get(name, Range(np.zeros((), values.dtype), np.zeros((), values.dtype)))
            low, high = np.minimum(known.low, values.min()), np.maximum(known.high, values.max())
            ranges[name] = Range(np.asarray(low, values.dtype), np.asarray(high, values.dtype))
    return ranges


def input_moments(
    source: Path,
    model: onnx.ModelProto,
    names: Collection[str],
    frames: Sequence[Image],
    batch: int,
    report: Callable[[float], None],
) -> dict[str, Moments]:
    """For each convolution the moments of what its kernel sees over all frames.

    Args:
        source: The graph.
        model: The same with the types of its tensors.
        names: The convolutions' nodes.
        frames: uint8 [h, w, 3], BGR, at the graph's size.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Called with the share that is done.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name in names]
    inputs = list(dict.fromkeys(node.input[0] for node in nodes))
    rng = np.random.default_rng(0)
    sums: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = {}
    count = dict.fromkeys(names, 0)
    for tensors in _watch(source, model, inputs, frames, batch, report):
        for node in nodes:
            seen = _seen(tensors[node.input[0]][0], node, shapes[node.input[1]][2], rng)
            first, second = seen.sum(axis=1), seen.transpose(0, 2, 1) @ seen
            if node.name in sums:
                first, second = first + sums[node.name][0], second + sums[node.name][1]
            sums[node.name] = first, second
            count[node.name] += seen.shape[1]
    moments = {}
    for name, (first, second) in sums.items():
        mean = first / count[name]
        moments[name] = Moments(mean, second / count[name] - mean[:, :, None] * mean[:, None, :])
    return moments


def round_weights(
    weight: npt.NDArray[np.floating[Any]], scale: npt.NDArray[np.floating[Any]], moments: Moments
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """Rounds a convolution's weights so that its outputs change least, not the weights.

    What one weight loses is made up for by those that are not rounded yet, as far as their inputs go together
    (Frantar et al. 2022, GPTQ, eq. 3), and what is left of the mean by the bias. EfficientNet-Lite1's weights drift
    nano's map a sixth as far then as rounded to the nearest.

    Args:
        weight: [outputs, inputs of a group, kernel, kernel].
        scale: Of each output, [outputs].
        moments: Of what the kernel sees.

    Returns:
        The weights in scales, of `weight`'s shape, and what is to be added to the bias, [outputs].
    """
    groups, inputs = moments.mean.shape
    exact = weight.astype(np.float64).reshape(groups, -1, inputs)
    steps = scale.astype(np.float64).reshape(groups, -1)
    variance = np.einsum("gii->gi", moments.covariance).mean(axis=1)
    damping = np.maximum(_DAMPING * variance, np.finfo(np.float32).eps)
    inverse = np.linalg.inv(moments.covariance + damping[:, None, None] * np.eye(inputs))
    share = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2).transpose(0, 2, 1)
    left, rounded = exact.copy(), np.zeros_like(exact)
    for at in range(inputs):
        rounded[:, :, at] = np.clip(np.round(left[:, :, at] / steps), -127, 127)
        lost = (left[:, :, at] - rounded[:, :, at] * steps) / share[:, at, at, None]
        left[:, :, at + 1 :] -= lost[:, :, None] * share[:, None, at, at + 1 :]
    shift = ((exact - rounded * steps[:, :, None]) * moments.mean[:, None, :]).sum(axis=2)
    return rounded.astype(np.int8).reshape(weight.shape), shift.reshape(-1)


def _seen(
    image: npt.NDArray[np.floating[Any]], node: onnx.NodeProto, kernel: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """What a convolution's kernel sees of [C, H, W] at some places: [groups, places, inputs of a group]."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    top, left, bottom, right = attributes["pads"].ints if "pads" in attributes else (0, 0, 0, 0)
    rows, columns = attributes["strides"].ints if "strides" in attributes else (1, 1)
    groups = attributes["group"].i if "group" in attributes else 1
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))[:, ::rows, ::columns]
    height, width = windows.shape[1:3]
    places = rng.choice(height * width, min(POSITIONS, height * width), replace=False)
    seen = windows[:, places // width, places % width].astype(np.float64)  # [C, places, kernel, kernel]
    seen = seen.reshape(groups, -1, len(places), kernel * kernel).transpose(0, 2, 1, 3)
    return np.asarray(seen.reshape(groups, len(places), -1), np.float64)


def _watch(
    source: Path,
    model: onnx.ModelProto,
    names: Sequence[str],
    frames: Sequence[Image],
    batch: int,
    report: Callable[[float], None],
) -> Iterator[dict[str, npt.NDArray[np.floating[Any]]]]:
    """What some tensors hold, frame by frame."""
    types = {value.name: value for value in model.graph.value_info}
    watched = onnx.load(source, load_external_data=False)
    watched.graph.output.extend(types[name] for name in names)
    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as file:
        file.write(watched.SerializeToString())
        file.flush()
        run = plain_session(file.name, batch)
        for number, frame in enumerate(frames):
            yield dict(zip(names, run(frame, names), strict=True))
            report((number + 1) / len(frames))


def plain_session(
    model: str | bytes, batch: int
) -> Callable[[Image, Sequence[str]], list[npt.NDArray[np.floating[Any]]]]:
    """Opens a graph on the CPU.

    Args:
        model: A path or the file's bytes.
        batch: Length of the graph's static batch axis.
    """
    keep_onnxruntime_silent()
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model, settings, providers=["CPUExecutionProvider"], disabled_optimizers=list(WRONG_OPTIMIZERS)
    )
    taken = {value.name: value.shape for value in session.get_inputs()}
    memory: dict[str, Any] = {}
    if MEMORY_INPUTS[0] in taken:
        memory |= MemoryTensors.empty(taken[MEMORY_INPUTS[0]][1]).inputs()

    def run(frame: Image, names: Sequence[str]) -> list[npt.NDArray[np.floating[Any]]]:
        fed = {"frame": np.repeat(frame[None], batch, axis=0), **memory}
        if "class_index" in taken:
            fed["class_index"] = np.zeros(batch, dtype=np.int64)
        values: list[npt.NDArray[np.floating[Any]]] = session.run(list(names), fed)
        return values

    return run
