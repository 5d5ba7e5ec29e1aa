"""Writes the graphs of large products: `python -m kanoclip.benchmarks.bench.gemm.write`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kanoclip.benchmarks.bench.gemm import CHAIN, OPSET, SENTINEL, SIDE

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-fp16")
_CARRIER = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.FLOAT,
    "int8-fp16": TensorProto.FLOAT16,
}


def gemm_graph(precision: str) -> onnx.ModelProto:
    """The graph, with SENTINEL for N.

    Entries are a hash of their position (the fraction of a large multiple of a sine), with mean 0 and variance 1/N:
    products then keep their size, and a GPU's multipliers switch as they do on real values.
    """
    carrier = _CARRIER[precision]
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def node(kind: str, *inputs: str, name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(name: str, value: object, dtype: type) -> str:
        constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def matrix(name: str, frequency: float) -> str:
        """Float32 [N, N]."""
        wave = node(
            "Sin",
            node("Mul", "places", constant(f"{name}_f", frequency, np.float32), name=f"{name}_x"),
            name=f"{name}_s",
        )
        large = node("Mul", wave, "large", name=f"{name}_l")
        fraction = node("Sub", large, node("Floor", large, name=f"{name}_w"), name=f"{name}_u")
        centred = node("Sub", fraction, "half", name=f"{name}_c")
        flat = node("Mul", centred, "spread", name=f"{name}_flat")
        return node("Reshape", flat, "shape", name=name)

    def narrowed(name: str) -> str:
        if carrier == TensorProto.FLOAT:
            return name
        return node("Cast", name, name=f"{name}_narrow", to=carrier)

    def quantised(name: str, scale: str) -> str:
        whole = node("QuantizeLinear", name, scale, "zero", name=f"{name}_q")
        return node("DequantizeLinear", whole, scale, "zero", name=f"{name}_dq")

    size = constant("n", [SENTINEL], np.int64)
    scalar = node("Squeeze", size, name="n_scalar")
    node("Concat", size, size, name="shape", axis=0)
    count = node("Mul", scalar, scalar, name="count")
    places = node("Range", constant("first", 0, np.int64), count, constant("step", 1, np.int64), name="whole_places")
    node("Cast", places, name="places", to=TensorProto.FLOAT)
    constant("large", 43758.547, np.float32)
    constant("half", 0.5, np.float32)
    floating = node("Cast", scalar, name="n_float", to=TensorProto.FLOAT)
    node("Sqrt", node("Div", constant("twelve", 12.0, np.float32), floating, name="variance"), name="spread")

    weights = narrowed(matrix("weights", 12.9898))
    if precision.startswith("int8"):
        constant("zero", 0, np.int8)
        kind = np.float32 if carrier == TensorProto.FLOAT else np.float16
        constant("activation_scale", 4 / 127, kind)
        # Entries of the weights reach sqrt(12 / N) / 2; this holds from N = 1024 on, and only the range depends on it.
        constant("weight_scale", 0.0541 / 127, kind)
        weights = quantised(weights, "weight_scale")
    # The products cannot be computed beforehand: they begin with the frame.
    pixels = node("Cast", "frame", name="pixels", to=TensorProto.FLOAT)
    mean = node("ReduceMean", pixels, name="mean", keepdims=0)
    factor = node(
        "Add",
        node("Div", mean, constant("white", 255.0, np.float32), name="light"),
        constant("one", 1.0, np.float32),
        name="factor",
    )
    rooted = node("Mul", factor, node("Sqrt", floating, name="root"), name="rooted")
    if carrier != TensorProto.FLOAT:
        rooted = node("Cast", rooted, name="rooted_narrow", to=carrier)
    value = node("Mul", narrowed(matrix("start", 78.233)), rooted, name="product_0")
    for number in range(1, CHAIN + 1):
        if precision.startswith("int8"):
            value = quantised(value, "activation_scale")
        value = node("MatMul", value, weights, name=f"product_{number}")
    if carrier != TensorProto.FLOAT:
        value = node("Cast", value, name="wide", to=TensorProto.FLOAT)
    largest = node("ReduceMax", value, name="largest", keepdims=0)
    unit = node("Sigmoid", largest, name="unit")
    node("Reshape", unit, constant("one_value", [1], np.int64), name="score")
    node("Expand", unit, constant("map_shape", [1, SIDE, SIDE], np.int64), name="map")
    graph = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [
            helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, SIDE, SIDE]),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [1]),
        ],
        constants,
    )
    opset = helper.make_opsetid("", 19 if precision == "int8-fp16" else OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9, producer_name="kanoclip")
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    for one in PRECISIONS:
        Path(__file__).with_name(f"{one}.onnx").write_bytes(gemm_graph(one).SerializeToString(deterministic=True))
