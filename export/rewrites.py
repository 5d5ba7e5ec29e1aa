"""What is changed in a graph after torch has written it; none of it changes a result."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

STORED_IN_HALF_FROM = 1 << 12
"""Elements; smaller constants are not worth a Cast."""


def fold_transpositions(graph: ir.Graph) -> None:
    """Replaces every transposition of a constant by the transposed constant, one for all of its users.

    The exporter leaves those alone whose constant has several users. Quantisation looks for constants, and every
    engine would otherwise have to fold them again.
    """
    folded: dict[tuple[str, tuple[int, ...]], ir.Value] = {}
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or not source.is_initializer() or source.const_value is None:
            continue
        order = tuple(node.attributes["perm"].as_ints())
        key = (str(source.name), order)
        if key not in folded:
            content = np.ascontiguousarray(np.transpose(source.const_value.numpy(), order))
            name = f"{source.name}.{'_'.join(map(str, order))}"
            folded[key] = ir.val(name, const_value=ir.tensor(content, dtype=source.dtype, name=name))
            graph.register_initializer(folded[key])
        node.outputs[0].replace_all_uses_with(folded[key])
        graph.remove(node, safe=True)
        if not source.uses():
            del graph.initializers[str(source.name)]


def reorder_gelu(graph: ir.Graph) -> None:
    """Writes `x * (0.5 * (1 + erf(x / sqrt 2)))` as `(x * (1 + erf(x / sqrt 2))) * 0.5`.

    Halving is exact in every dtype. ONNX Runtime and TensorRT know the second order of the factors and make one
    kernel of it; torch's exporter writes the first, which neither knows.
    """
    for outer in graph:
        if outer.op_type != "Mul":
            continue
        for x, inner_value in (tuple(outer.inputs), tuple(reversed(outer.inputs))):
            inner = inner_value.producer() if inner_value is not None else None
            if inner is None or inner.op_type != "Mul" or len(inner.outputs[0].uses()) != 1:
                continue
            at = next((at for at, value in enumerate(inner.inputs) if _is_half(value)), None)
            if at is None or not _is_one_plus_erf(inner.inputs[1 - at]):
                continue
            half, grown = inner.inputs[at], inner.inputs[1 - at]
            for node, (first, second) in ((inner, (x, grown)), (outer, (inner.outputs[0], half))):
                node.replace_input_with(0, first)
                node.replace_input_with(1, second)
            inner.outputs[0].shape = outer.outputs[0].shape
            break


def store_in_half(graph: ir.Graph) -> None:
    """Stores every large float32 constant that fp16 holds exactly as fp16, with a Cast before its use.

    Most CLIPs were published in fp16: their fp32 graph is as small as the fp16 one then, and gives the same bits.
    Engines fold the Cast when they load the graph.
    """
    for name, value in list(graph.initializers.items()):
        content = value.const_value
        if content is None or content.dtype != ir.DataType.FLOAT or content.size < STORED_IN_HALF_FROM:
            continue
        whole = content.numpy()
        with np.errstate(over="ignore"):
            small = whole.astype(np.float16)
        if not np.array_equal(small.astype(np.float32), whole):
            continue
        stored = ir.val(f"{name}.half", const_value=ir.tensor(small, name=f"{name}.half"))
        cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT.value}, name=f"weights/{name}")
        cast.outputs[0].name, cast.outputs[0].shape = f"{name}.whole", value.shape
        cast.outputs[0].dtype = ir.DataType.FLOAT
        graph.register_initializer(stored)
        graph.insert_before(graph[0], cast)
        value.replace_all_uses_with(cast.outputs[0])
        del graph.initializers[name]


def _is_half(value: ir.Value | None) -> bool:
    content = ir.convenience.get_const_tensor(value) if value is not None else None
    return content is not None and content.size == 1 and float(content.numpy().reshape(())) == 0.5


def _is_one_plus_erf(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Add" or len(node.outputs[0].uses()) != 1:
        return False
    producers = [source.producer() for source in node.inputs if source is not None]
    return any(producer is not None and producer.op_type == "Erf" for producer in producers)
