"""The graph of large products that an engine's peak is measured with, one file for each precision.

Each is a bundle's graph: a frame in, map and score out, and CHAIN products of N x N matrices between, whose values are
made in the graph itself. So the files are small, run in every backend as any bundle does, and need no `onnx` on the
machine that is measured. N stands in one place, and is put in when the file is read. `write.py` makes the files.
"""

from __future__ import annotations

from importlib import resources

CHAIN = 4
"""Products in a row: what comes before and after them is then under 1 % of the time."""
SIDE = 32
"""Of the frame, in pixels: next to nothing to copy."""
SENTINEL = 0x4B414E4F434C4950
"""N in the files."""
OPSET = 18


def gemm_model(precision: str, size: int) -> bytes:
    """The ONNX file.

    Args:
        precision: `fp32`, `fp16`, `bf16`; `int8` with float32 between the products, `int8-fp16` with float16.
        size: N.
    """
    content = resources.files(__name__).joinpath(f"{precision}.onnx").read_bytes()
    return content.replace(SENTINEL.to_bytes(8, "little"), size.to_bytes(8, "little"))
