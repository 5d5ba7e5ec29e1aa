"""How many attention blocks a TensorRT-RTX engine has fused, read from its bytes: no GPU can be asked."""

from __future__ import annotations

import re
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions, build_engine
from kanoclip.runtime.engines.tensorrt.flavour import RTX, load_flavour

_KERNEL = re.compile(rb"_gemm_mha_v2_0x[0-9a-f]{32}")
"""Name of a fused kernel; an engine holds it the same number of times for each block."""
_TARGET = "8.6"
_TOKENS, _WIDTH, _HEADS = 64, 64, 2


def count_fused(engine: bytes | memoryview) -> int:
    """Fused attention blocks in an engine.

    Args:
        engine: A serialised engine of the TensorRT-RTX that is installed.

    Raises:
        BackendError: TensorRT-RTX is not installed, or does not build a model of one block.
    """
    return len(_KERNEL.findall(engine)) // _names_per_block()


@lru_cache(maxsize=1)
def _names_per_block() -> int:
    """How often an engine of exactly one block holds the kernel's name; the factor changes between versions.

    Where it holds it never, this version names its kernels otherwise, and nothing is counted as fused: too low a count
    is noticed, too high a one is not.
    """
    with tempfile.TemporaryDirectory(prefix="kanoclip-attention-") as folder:
        path = Path(folder) / "blocks.onnx"
        write_blocks(path, 1)
        built = build_engine(load_flavour(RTX), path, BuildOptions(targets=(_TARGET,)), lambda share: None)
        return len(_KERNEL.findall(built)) or 1


def write_blocks(path: Path, count: int) -> None:
    """Writes an fp16 model of `count` self-attention blocks, one after the other, in the form that export writes."""
    rng = np.random.default_rng(0)
    shape = [1, _HEADS, _TOKENS, _WIDTH]
    nodes, constants, stream = [], [], "x"
    for number in range(count):
        parts = []
        for part in "qkv":
            weight = rng.normal(0, 0.1, (_WIDTH, _WIDTH)).astype(np.float16)
            constants.append(numpy_helper.from_array(weight, f"w{part}{number}"))
            nodes.append(helper.make_node("MatMul", [stream, f"w{part}{number}"], [f"{part}{number}"]))
            parts.append(f"{part}{number}")
        q, k, v = parts
        nodes += [
            helper.make_node("Mul", [q, "scale"], [f"{q}s"]),
            helper.make_node("Transpose", [k], [f"{k}t"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", [f"{q}s", f"{k}t"], [f"logits{number}"]),
            helper.make_node("Softmax", [f"logits{number}"], [f"weights{number}"], axis=-1),
            helper.make_node("MatMul", [f"weights{number}", v], [f"y{number}"]),
        ]
        stream = f"y{number}"
    constants.append(numpy_helper.from_array(np.array(_WIDTH**-0.5, np.float16), "scale"))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape)] for name in ("x", stream))
    graph = helper.make_graph(nodes, "blocks", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
