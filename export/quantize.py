"""int8: QuantizeLinear and DequantizeLinear around the tower's large MatMuls, calibrated on pictures.

In the form that TensorRT's parser takes: symmetric, weights per channel, each pair with one consumer, no quantised
bias. Q K^T, P V, the patch embedding, the first blocks, norms and the head stay as they are.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from kanoclip.export.onnx_writer import EXTERNAL_DATA_FROM
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.types import Image

FIRST_OPSET = 19
"""QuantizeLinear takes fp16 from here on."""
PERCENTILE = 99.99
"""Of a frame's magnitudes, the largest over all frames."""
LEFT_ALONE = 0.2
"""Share of the blocks, the first ones, whose named layers stay in fp16: what is lost there is lost for all stages. On
nano's maps the largest drift is 0.059 with this and 0.149 without it, and 0.125 by the percentile 99.999."""
_BLOCK = re.compile(r"^tower\.blocks\.(\d+)\.")
_GEMMS = ("MatMul", "Gemm")
_FIRST_LAYER = "patch_weight"


def quantizable(graph: onnx.GraphProto) -> list[str]:
    """Names of the MatMuls and Gemms with a constant matrix, without patch embedding, first blocks and head."""
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2} - {_FIRST_LAYER}
    names = [
        node.name
        for node in graph.node
        if node.op_type in _GEMMS and not node.name.startswith("head") and matrices.intersection(node.input)
    ]
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.match(name))}
    first = math.ceil(LEFT_ALONE * (max(blocks.values(), default=-1) + 1))
    return [name for name in names if blocks.get(name, first) >= first]


def quantize(source: Path, target: Path, frames: Sequence[Image], batch: int, report: Callable[[float], None]) -> int:
    """Writes the int8 form of a graph.

    Args:
        source: The fp16 graph, opset 19 or later.
        target: Where to write; large weights go into TARGET.data.
        frames: uint8 [h, w, 3], BGR, at model size: what calibration looks at, one at a time.
        batch: Length of the graph's static batch axis; 1 for a dynamic one.
        report: Told the share that is done.

    Returns:
        How many MatMuls and Gemms were quantised.

    Raises:
        ExportError: There is nothing to quantise, or no picture.
    """
    # ONNX Runtime's quantiser is slow to import.
    from onnxruntime.quantization import QDQQuantizer, QuantType
    from onnxruntime.quantization.calibrate import TensorData

    model = onnx.shape_inference.infer_shapes(onnx.load(source))
    names = set(quantizable(model.graph))
    if not names or not frames:
        raise ExportError("int8 needs at least one picture and one MatMul with constant weights")
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name in names]
    activations = sorted({name for node in nodes for name in node.input[:2] if name not in constants})
    limits = _limits(source, model, activations, frames, batch, report)
    ranges = {name: TensorData(lowest=-limit, highest=limit) for name, limit in limits.items()}
    quantizer = QDQQuantizer(
        model,
        True,  # per channel
        False,  # all 8 bits
        QuantType.QInt8,
        QuantType.QInt8,
        ranges,
        sorted(names),
        [],
        list(_GEMMS),
        {
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": list(_GEMMS),
        },
    )
    quantizer.quantize_model()
    written = quantizer.model.model
    apart = sum(len(tensor.raw_data) for tensor in written.graph.initializer) >= EXTERNAL_DATA_FROM
    onnx.save_model(written, target, save_as_external_data=apart, location=target.name + ".data")
    return len(names)


def _limits(
    source: Path,
    model: onnx.ModelProto,
    names: Sequence[str],
    frames: Sequence[Image],
    batch: int,
    report: Callable[[float], None],
) -> dict[str, npt.NDArray[np.float16]]:
    """For each tensor the magnitude that PERCENTILE of its values stay below, the largest over all frames.

    ONNX Runtime's own percentiles are of histograms whose bins fp16 cannot hold, and keep every tensor of every frame.
    """
    import onnxruntime

    types = {value.name: value for value in model.graph.value_info}
    watched = onnx.load(source, load_external_data=False)
    watched.graph.output.extend(types[name] for name in names)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    limits = dict.fromkeys(names, np.float32(0))
    with tempfile.NamedTemporaryFile(dir=source.parent, suffix=".onnx") as file:
        file.write(watched.SerializeToString())
        file.flush()
        session = onnxruntime.InferenceSession(file.name, settings, providers=["CPUExecutionProvider"])
        several = len(session.get_inputs()) > 1
        for number, frame in enumerate(frames):
            fed = {"frame": np.repeat(frame[None], batch, axis=0)}
            if several:
                fed["class_index"] = np.zeros(batch, dtype=np.int64)
            for name, values in zip(names, session.run(list(names), fed), strict=True):
                limit = np.percentile(np.abs(values.astype(np.float32)), PERCENTILE)
                limits[name] = max(limits[name], np.float32(limit))
            report((number + 1) / len(frames))
    # The type of the ranges decides that of the scales, and so of the MatMuls.
    return {name: np.asarray(limit, np.float16) for name, limit in limits.items()}
