from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from kanoclip.export import onnx_writer
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.rewrites import STORED_IN_HALF_FROM, reorder_gelu, store_in_half
from kanoclip.train.checkpoint import build_model
from kanoclip.train.model.kanoclip import ModelConfig

SIZE = (48, 48)
FRAMES = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
DEEP = 1e6
"""No value of fp16."""


def came_in_fp16():
    """A model whose weights fp16 holds exactly, as most published CLIPs' are."""
    model = build_model(ModelConfig("random-tiny", SIZE), "none").model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    return model


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    """Graphs as torch writes them."""
    model = came_in_fp16()
    folder = tmp_path_factory.mktemp("rewrites")
    with pytest.MonkeyPatch.context() as patch:
        for rewrite in ("reorder_gelu", "store_in_half"):
            patch.setattr(onnx_writer, rewrite, lambda graph: None)
        for precision in ("fp32", "fp16"):
            graph = DeployGraph(model, ["bolt"], precision)
            write_onnx(graph, SIZE, BatchSpec(), 18, folder / f"{precision}.onnx")
    return folder


def rewritten(untouched, target, *rewrites, precision="fp32", change=None):
    model = ir.load(untouched / f"{precision}.onnx")
    for name, value in model.graph.initializers.items():
        if change is not None and value.const_value.size >= STORED_IN_HALF_FROM:
            value.const_value = ir.tensor(change(value.const_value.numpy()), name=name)
    for rewrite in rewrites:
        rewrite(model.graph)
    ir.save(model, target)
    onnx.checker.check_model(target, full_check=True)
    return target


def session(path, level, optimised=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(path, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL):
    return session(path, level).run(["map", "score"], {"frame": FRAMES})


def optimised(path):
    target = path.with_suffix(".optimised.onnx")
    session(path, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, target)
    return onnx.load(target).graph.node


def test_onnx_runtime_makes_one_kernel_of_every_gelu(untouched, tmp_path):
    count = sum(node.op_type == "Erf" for node in onnx.load(untouched / "fp32.onnx").graph.node)
    assert count >= 3, "one in every block but the last"
    for rewrites, gelu, erf in (((reorder_gelu,), count, 0), ((), 0, count)):  # without it: until ONNX Runtime learns
        kinds = [node.op_type for node in optimised(rewritten(untouched, tmp_path / "m.onnx", *rewrites))]
        assert (kinds.count("Gelu"), kinds.count("Erf")) == (gelu, erf)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_order_of_gelus_factors_changes_nothing(untouched, tmp_path, precision):
    path = rewritten(untouched, tmp_path / "m.onnx", reorder_gelu, precision=precision)
    for one, other in zip(answers(path), answers(untouched / f"{precision}.onnx"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_came_in_fp16_take_half_the_room_and_give_the_same_bits(untouched, tmp_path):
    path = rewritten(untouched, tmp_path / "m.onnx", store_in_half)
    sizes = path.stat().st_size, (untouched / "fp32.onnx").stat().st_size
    assert sizes[0] < 0.7 * sizes[1], sizes
    for level in (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
        for one, other in zip(answers(path, level), answers(untouched / "fp32.onnx", level), strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_is_cast_while_a_frame_waits(untouched, tmp_path):
    nodes = optimised(rewritten(untouched, tmp_path / "m.onnx", store_in_half))
    assert [node.input[0] for node in nodes if node.op_type == "Cast"] == ["frame"]


@pytest.mark.parametrize("value", [DEEP, 1 / 3, 1e-9])
def test_a_weight_that_fp16_cannot_hold_stays_whole(untouched, tmp_path, value):
    def change(content):
        changed = content.copy()
        changed.flat[0] = value
        return changed

    path = rewritten(untouched, tmp_path / "m.onnx", store_in_half, change=change)
    large = [t for t in onnx.load(path).graph.initializer if np.prod(t.dims) >= STORED_IN_HALF_FROM]
    assert large and all(tensor.data_type == onnx.TensorProto.FLOAT for tensor in large)


def test_an_export_does_both(tmp_path, untouched):
    write_onnx(DeployGraph(came_in_fp16(), ["bolt"], "fp32"), SIZE, BatchSpec(), 18, tmp_path / "m.onnx")
    assert "Gelu" in [node.op_type for node in optimised(tmp_path / "m.onnx")]
    assert (tmp_path / "m.onnx").stat().st_size < 0.7 * (untouched / "fp32.onnx").stat().st_size
