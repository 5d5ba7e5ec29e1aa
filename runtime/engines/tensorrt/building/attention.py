"""Attention blocks of a parsed network: found, counted, and single ones computed in float32.

TensorRT fuses `MatMul -> Softmax -> MatMul` in fp16 and bf16 into one kernel. Such kernels have been wrong without a
word (fp16 ViTs in TensorRT 10.3; sm_120). Casts around a block keep it in float32, which no fused kernel takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AttentionBlock:
    """One block of a network.

    Attributes:
        name: Of its softmax.
        logits: The layer of Q K^T.
        values: The layer of P V.
    """

    name: str
    logits: Any
    values: Any


def attention_blocks(trt: Any, network: Any) -> list[AttentionBlock]:
    """The half-precision attention blocks of a network, in its order; a block's place here is its number.

    Args:
        trt: TensorRT's module.
        network: A parsed network.
    """
    makers: dict[str, Any] = {}
    for layer in _layers(network):
        for number in range(layer.num_outputs):
            makers[layer.get_output(number).name] = layer
    readers = _readers(network)
    halves = (trt.DataType.HALF, trt.DataType.BF16)
    blocks = []
    for layer in _layers(network):
        if layer.type != trt.LayerType.SOFTMAX or layer.get_input(0).dtype not in halves:
            continue
        logits = makers.get(layer.get_input(0).name)
        while logits is not None and logits.type == trt.LayerType.SHUFFLE:
            logits = makers.get(logits.get_input(0).name)
        values = _only_reader(layer, readers)
        while values is not None and values.type == trt.LayerType.SHUFFLE:
            values = _only_reader(values, readers)
        pair = [found for found in (logits, values) if found is not None]
        if len(pair) == 2 and all(found.type == trt.LayerType.MATRIX_MULTIPLY for found in pair):
            blocks.append(AttentionBlock(layer.name, *pair))
    return blocks


def keep_in_float32(trt: Any, network: Any, numbers: Collection[int]) -> None:
    """Casts the inputs of some attention blocks up to float32 and their outputs back.

    Args:
        trt: TensorRT's module.
        network: A parsed network; changed.
        numbers: Places in `attention_blocks`.

    Raises:
        IndexError: The network has no such block.
    """
    blocks = attention_blocks(trt, network)
    for number in sorted(numbers):
        block = blocks[number]
        result = block.values.get_output(0)
        half = result.dtype
        readers = _readers(network).get(result.name, [])
        for layer, place in ((block.logits, 0), (block.logits, 1), (block.values, 1)):
            layer.set_input(place, _cast(network, layer.get_input(place), trt.float32))
        # Only now does the product have its new type, which the cast back starts from.
        back = _cast(network, result, half)
        for layer, place in readers:
            layer.set_input(place, back)


def _cast(network: Any, tensor: Any, dtype: Any) -> Any:
    return network.add_cast(tensor, dtype).get_output(0)


def _layers(network: Any) -> Iterator[Any]:
    for number in range(network.num_layers):
        yield network.get_layer(number)


def _readers(network: Any) -> dict[str, list[tuple[Any, int]]]:
    """For each tensor the layers that read it, and as which input."""
    readers: dict[str, list[tuple[Any, int]]] = {}
    for layer in _layers(network):
        for place in range(layer.num_inputs):
            if (tensor := layer.get_input(place)) is not None:
                readers.setdefault(tensor.name, []).append((layer, place))
    return readers


def _only_reader(layer: Any, readers: dict[str, list[tuple[Any, int]]]) -> Any | None:
    found = readers.get(layer.get_output(0).name, [])
    return found[0][0] if len(found) == 1 else None
