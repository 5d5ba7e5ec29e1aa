"""Counts what a graph has to do, from its ONNX file: the products' operations and the bytes that must move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnx

from kanoclip.runtime.bundle.manifest.parts import GraphWork
from kanoclip.runtime.bundle.manifest.signature import MEMORY_INPUTS
from kanoclip.runtime.errors import ExportError

_PRODUCTS = ("MatMul", "Gemm", "Conv")


def count_work(path: Path, batch: int) -> GraphWork:
    """Counts a bundle's graph.

    Args:
        path: Its ONNX file; weights beside it are not read.
        batch: The batch that it is counted for, which a dynamic batch axis is set to; a static one must be this.

    Raises:
        ExportError: A shape is not static but for the batch.
    """
    model = _with_shapes(path, batch)
    graph, shapes = model.graph, _shapes(model.graph)
    constants = {tensor.name for tensor in graph.initializer}
    fed = [value for value in graph.input if value.name not in constants and value.name not in MEMORY_INPUTS]
    moved = sum(_bytes(shapes[value.name], value.type.tensor_type.elem_type) for value in (*fed, *graph.output))
    return GraphWork(
        gemm_flops=sum(_gemm_flops(path, graph, shapes).values()) // batch,
        weight_bytes=sum(_bytes(list(tensor.dims), tensor.data_type) for tensor in graph.initializer),
        frame_bytes=moved // batch,
    )


def gemm_flops(path: Path, batch: int | None = None) -> dict[str, int]:
    """Multiply-adds counted as two operations, per operator type, for a graph of static shape.

    Args:
        path: An ONNX file; weights beside it are not read.
        batch: What a dynamic first axis of the inputs is set to; None where all is static.

    Raises:
        ExportError: A shape is not static.
    """
    graph = _with_shapes(path, batch).graph
    return _gemm_flops(path, graph, _shapes(graph))


def _with_shapes(path: Path, batch: int | None) -> onnx.ModelProto:
    model = onnx.load(path, load_external_data=False)
    if batch is not None:
        # What the exporter noted of the values between has the axis's name in it, and would win over what is inferred.
        del model.graph.value_info[:]
        for value in (*model.graph.input, *model.graph.output):
            axes = value.type.tensor_type.shape.dim
            if axes and axes[0].dim_param:
                # What a reference memory costs depends on its rows: counted is the graph without one.
                axes[0].dim_value = 1 if value.name in MEMORY_INPUTS else batch
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Of every value; 0 stands for an axis that is not known."""
    found = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return found | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def _gemm_flops(path: Path, graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> dict[str, int]:
    total = dict.fromkeys(_PRODUCTS, 0)
    for node in graph.node:
        if node.op_type not in total:
            continue
        first, second, out = (shapes.get(name, []) for name in (node.input[0], node.input[1], node.output[0]))
        if not (first and second and out) or 0 in (*first, *second, *out):
            raise ExportError(f"{path}: the shapes around {node.name} are not static: count a static export")
        if node.op_type == "Conv":
            inner = math.prod(second[1:])
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = first[0] if transposed else first[1]
        else:
            inner = first[-1]
        total[node.op_type] += 2 * math.prod(out) * inner
    return total


def _bytes(shape: Sequence[int], kind: int) -> int:
    return math.prod(shape) * int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
