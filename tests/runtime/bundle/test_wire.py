"""Protobuf's wire format, held against onnx's own reader and writer."""

from __future__ import annotations

import random

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kanoclip.runtime.bundle.wire import WITH_LENGTH, fields, message, varint


def some_model():
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "a name", alpha=0.25, transB=1)
    weights = numpy_helper.from_array(np.arange(300, dtype=np.float32).reshape(30, 10), "w")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 30])],
        [weights],
    )
    return helper.make_model(graph, producer_name="ü" * 200)


def test_fields_are_those_of_the_message_and_cover_it():
    model = some_model()
    data = model.SerializeToString()
    found = list(fields(data, 0, len(data)))
    assert [one.number for one in found] == [field.number for field, _ in model.ListFields()]
    assert b"".join(data[one.start : one.end] for one in found) == data
    graph = next(one for one in found if one.number == 7)
    assert graph.form == WITH_LENGTH and data[graph.first : graph.end] == model.graph.SerializeToString()


def test_what_is_written_is_read():
    rng = random.Random(0)
    for length in (0, 1, 127, 128, 16383, 16384, 70000):
        content, number = rng.randbytes(length), rng.choice([1, 15, 16, 2047, 2048])
        data = message(number, content)
        (found,) = fields(data, 0, len(data))
        assert (found.number, found.form, found.start, found.end) == (number, WITH_LENGTH, 0, len(data))
        assert data[found.first : found.end] == content


@pytest.mark.parametrize(
    "data", [b"\x0a\x05abcd", b"\x0b", b"\x0a", b"\x08", b"\x0d\x00\x00", b"\x09\x00", b"\x08" + b"\xff" * 12]
)
def test_what_is_no_message(data):
    """Longer than it is, a form that is none, and ends in the middle."""
    with pytest.raises((ValueError, IndexError)):
        list(fields(data, 0, len(data)))


def test_a_number_of_64_bits():
    assert varint(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)


def test_bytes_of_any_kind_end():
    """Noise is refused or read to its end; nothing is read beyond it, and nothing goes round."""
    data = some_model().SerializeToString()
    for seed in range(200):
        rng = random.Random(seed)
        broken = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            found = list(fields(bytes(broken), 0, len(broken)))
        except (ValueError, IndexError):
            continue
        assert found[-1].end == len(broken)
