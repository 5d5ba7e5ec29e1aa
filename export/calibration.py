"""What the tensors before the quantised MatMuls hold, measured on pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from kanoclip.runtime.types import Image


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
        report: Told the share that is done.

    """
    types = {value.name: value for value in model.graph.value_info}
    watched = onnx.load(source, load_external_data=False)
    watched.graph.output.extend(types[name] for name in names)
    ranges: dict[str, Range] = {}
    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as file:
        file.write(watched.SerializeToString())
        file.flush()
        run = plain_session(file.name, batch)
        for number, frame in enumerate(frames):
            for name, values in zip(names, run(frame, names), strict=True):
                known = ranges.get(name, Range(np.zeros((), values.dtype), np.zeros((), values.dtype)))
                low, high = np.minimum(known.low, values.min()), np.maximum(known.high, values.max())
                ranges[name] = Range(np.asarray(low, values.dtype), np.asarray(high, values.dtype))
            report((number + 1) / len(frames))
    return ranges


def plain_session(
    model: str | bytes, batch: int
) -> Callable[[Image, Sequence[str]], list[npt.NDArray[np.floating[Any]]]]:
    """Opens a graph on the CPU.

    Args:
        model: A path or the file's bytes.
        batch: Length of the graph's static batch axis.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    several = len(session.get_inputs()) > 1

    def run(frame: Image, names: Sequence[str]) -> list[npt.NDArray[np.floating[Any]]]:
        fed = {"frame": np.repeat(frame[None], batch, axis=0)}
        if several:
            fed["class_index"] = np.zeros(batch, dtype=np.int64)
        values: list[npt.NDArray[np.floating[Any]]] = session.run(list(names), fed)
        return values

    return run
