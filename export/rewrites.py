"""What is changed in a graph after torch has written it; none of it changes a result by more than the last bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

STORED_IN_HALF_FROM = 1 << 12
"""Elements; smaller constants are not worth a Cast."""
SPELLED_OUT_FROM = 1 << 17
"""Elements of an image whose norms are taken. OpenVINO is fast with a norm: below, it loses what ONNX Runtime gains."""
_BROADCASTING = ("Add", "Sub", "Mul", "Div")


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


def order_for_cpus(graph: ir.Graph) -> None:
    """Writes what CPUs are slow with in a form that they are fast with; every engine may have it."""
    drop_expansions(graph)
    flatten_channels_last(graph)
    spell_out_norms(graph)


def drop_expansions(graph: ir.Graph) -> None:
    """Removes every Expand that an elementwise operator would do itself, without writing the expanded tensor."""
    for node in list(graph):
        if node.op_type != "Expand" or node.outputs[0].is_graph_output():
            continue
        source, expanded = node.inputs[0], node.outputs[0]
        users = [use.node for use in expanded.uses()]
        if source is None or expanded.shape is None or not users:
            continue
        # The result must have this shape without it, too: an operand beside it has.
        if all(
            user.op_type in _BROADCASTING
            and any(
                value is not expanded and value is not None and value.shape == expanded.shape for value in user.inputs
            )
            for user in users
        ):
            expanded.replace_all_uses_with(source)
            graph.remove(node, safe=True)


def flatten_channels_last(graph: ir.Graph) -> None:
    """Moves channels last before the grid is flattened into tokens, not after it, and the other way round.

    CPUs hold images with their channels last inside, whatever the graph's order: a transposition of the four axes costs
    nothing then, one of the three after a Reshape is two.
    """
    for node in list(graph):
        before = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
        if before is None or before.inputs[0] is None or len(before.outputs[0].uses()) != 1:
            continue
        source, target = _sizes(before.inputs[0]), _sizes(node.outputs[0])
        if source is None or target is None:
            continue
        if (
            (before.op_type, node.op_type) == ("Reshape", "Transpose")
            and _order(node) == (0, 2, 1)
            and len(source) == 4
            and target == [source[0], source[2] * source[3], source[1]]
        ):
            moved = _insert(graph, node, "Transpose", [before.inputs[0]], {"perm": [0, 2, 3, 1]})
            moved.shape = ir.Shape([source[0], *source[2:], source[1]])
            flat = _insert(graph, node, "Reshape", [moved, _whole_numbers(graph, node, target)])
        elif (
            (before.op_type, node.op_type) == ("Transpose", "Reshape")
            and _order(before) == (0, 2, 1)
            and len(target) == 4
            and source == [target[0], target[2] * target[3], target[1]]
        ):
            grid = [target[0], *target[2:], target[1]]
            moved = _insert(graph, node, "Reshape", [before.inputs[0], _whole_numbers(graph, node, grid)])
            moved.shape = ir.Shape(grid)
            flat = _insert(graph, node, "Transpose", [moved], {"perm": [0, 3, 1, 2]})
        else:
            continue
        _replace(graph, node, flat)
        graph.remove(before, safe=True)


def spell_out_norms(graph: ir.Graph) -> None:
    """Writes the float32 L2 norms of a large tensor as the root of the sum of squares.

    ONNX Runtime has a fast kernel for the sum and none for the norm (1.32: five times as long for the descriptors).
    """
    for node in list(graph):
        x = node.inputs[0] if node.op_type == "ReduceL2" else None
        if x is None or x.dtype != ir.DataType.FLOAT or x.shape is None:
            continue
        # A dynamic batch has a name for its size.
        if math.prod(size for size in x.shape if isinstance(size, int)) < SPELLED_OUT_FROM:
            continue
        squares = _insert(graph, node, "Mul", [x, x])
        squares.shape = x.shape
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        total = _insert(graph, node, "ReduceSum", [squares, *node.inputs[1:]], attributes)
        total.shape = node.outputs[0].shape
        _replace(graph, node, _insert(graph, node, "Sqrt", [total]))


def drop_unused(graph: ir.Graph) -> None:
    """Removes the constants that nothing reads any more: rewrites leave some behind, and engines warn of each."""
    outputs = set(graph.outputs)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del graph.initializers[name]


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


def _order(node: ir.Node) -> tuple[int, ...] | None:
    """A transposition's order of axes; None for another node."""
    return tuple(node.attributes["perm"].as_ints()) if node.op_type == "Transpose" else None


def _sizes(value: ir.Value) -> list[int] | None:
    """A static shape; None where an axis is not known."""
    if value.shape is None or not value.shape.is_static():
        return None
    return list(value.shape.numpy())


def _insert(
    graph: ir.Graph,
    before: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
) -> ir.Value:
    """Puts a node in front of another one, in the same module and of the same type of output."""
    node = ir.node(kind, inputs, attributes=attributes, name=f"{before.name}/{kind}")
    node.metadata_props.update(before.metadata_props)
    node.outputs[0].type = before.outputs[0].type
    graph.insert_before(before, node)
    return node.outputs[0]


def _replace(graph: ir.Graph, node: ir.Node, new: ir.Value) -> None:
    """Lets everything read the new value, which takes over the old one's name and shape."""
    old = node.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _whole_numbers(graph: ir.Graph, node: ir.Node, values: Sequence[int]) -> ir.Value:
    name = f"{node.outputs[0].name}.sizes"
    constant = ir.val(name, const_value=ir.tensor(np.array(values, np.int64), name=name))
    graph.register_initializer(constant)
    return constant
