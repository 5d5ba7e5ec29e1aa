"""Writes a deploy graph as ONNX."""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass

from kanoclip.export.graph import DeployGraph
from kanoclip.export.rewrites import drop_unused, fold_transpositions, order_for_cpus, reorder_gelu, store_in_half
from kanoclip.runtime.bundle.manifest.signature import FUSION_NUMBERS, MEMORY_INPUTS, ROWS
from kanoclip.runtime.errors import ExportError

OPSETS = range(18, 22)
"""18 and 19 load in TensorRT 10.3 (JetPack 6)."""
MOST_ROWS = 1 << 16
"""Most rows of a memory that the graph can take; the bundle says how many it should."""
EXTERNAL_DATA_FROM = 256 << 20
"""Weights of more bytes go into model.onnx.data, so that a viewer still opens model.onnx; protobuf's limit is 2 GiB."""


@dataclass(frozen=True)
class BatchSpec:
    """The graph's batch axis.

    Attributes:
        size: Largest batch; the only one unless `dynamic`.
        dynamic: Any batch from 1 to `size`.
    """

    size: int = 1
    dynamic: bool = False


def write_onnx(
    graph: DeployGraph, size: tuple[int, int], batch: BatchSpec, opset: int, path: Path, *, in_half: bool = True
) -> None:
    """Exports the graph to PATH (and PATH.data when the weights are large).

    Args:
        graph: In its final precision.
        size: (height, width) of the frame.
        batch: Static or dynamic batch axis.
        opset: One of OPSETS.
        path: Where to write.
        in_half: Store in fp16 what it holds exactly; not where the graph is quantised next, which wants constants.

    Raises:
        ExportError: The opset is unknown.
    """
    program = trace(graph, size, batch, opset)
    finish(program.model, in_half=in_half)
    weights = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    program.save(path, external_data=weights >= EXTERNAL_DATA_FROM)


def trace(graph: DeployGraph, size: tuple[int, int], batch: BatchSpec, opset: int) -> torch.onnx.ONNXProgram:
    """The graph as torch writes it, which `finish` then makes the one that ships; arguments as for `write_onnx`."""
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not supported: choose {OPSETS.start} to {OPSETS.stop - 1}")
    # torch.export specialises an axis of length 1, so a dynamic batch is traced with 2.
    traced = 2 if batch.dynamic else batch.size
    given: dict[str, Any] = {"frame": torch.zeros((traced, *size, 3), dtype=torch.uint8)}
    if graph.several_classes:
        given["class_index"] = torch.zeros(traced, dtype=torch.int64)
    axis = torch.export.Dim("batch", min=1, max=batch.size) if batch.dynamic else None
    shapes: dict[str, Any] = {name: {} if axis is None else {0: axis} for name in given}
    names = list(given)
    if graph.memory is not None:
        channels = graph.memory.channels
        given["memory"] = tuple(torch.zeros(shape) for shape in ((2, channels), (2,), (channels,), (FUSION_NUMBERS,)))
        rows = torch.export.Dim(ROWS, min=1, max=MOST_ROWS)
        shapes["memory"] = ({0: rows}, {0: rows}, {}, {})
        names += MEMORY_INPUTS
    with _quiet():
        # torch.onnx.export alone would try other ways when the batch turns out to be fixed, and fix it silently.
        exported = torch.export.export(graph.eval(), (), given, dynamic_shapes=shapes, strict=False)
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=opset,
            input_names=names,
            output_names=["map", "score", "descriptor"],
            dynamic_shapes=shapes,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # dynamo=True always returns a program
    return program


def finish(model: ir.Model, *, in_half: bool) -> None:
    """Rewrites a traced graph in place for the runtimes' sake, and names its nodes after the modules they come from.

    Args:
        model: From `trace`.
        in_half: As for `write_onnx`.
    """
    fold_transpositions(model.graph)
    reorder_gelu(model.graph)
    order_for_cpus(model.graph)
    drop_unused(model.graph)
    # Both paths use a block's out_proj, and the exporter may have folded its transposition for each of them.
    DeduplicateInitializersPass(size_limit=1 << 40)(model)
    for node in model.graph:
        node.name = f"{_module(node)}/{node.name}"
        # Stack traces of the exporting machine: nobody needs them, and they hold its paths.
        node.metadata_props.clear()
        node.doc_string = None
    if in_half:
        store_in_half(model.graph)


def _module(node: ir.Node) -> str:
    """The module that a node comes from, such as `tower.blocks.3.fc`; `graph` for the deploy graph itself."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    inner = [scope for scope in scopes[:-1] if scope]
    return inner[-1] if inner else "graph"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks on its own internals from the person's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
