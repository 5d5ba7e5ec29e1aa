from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from kanoclip.export import onnx_writer, rewrites
from kanoclip.export.onnx_writer import finish
from kanoclip.export.rewrites import (
    STORED_IN_HALF_FROM,
    drop_expansions,
    flatten_channels_last,
    order_for_cpus,
    reorder_gelu,
    spell_out_norms,
    store_in_half,
)

SIZE = (48, 48)
FRAMES = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
DEEP = 1e6
"""No value of fp16."""


@pytest.fixture(scope="module")
def untouched(traced, tmp_path_factory):
    """Graphs as torch writes them, under the names that they get: those that these rewrites have not seen."""
    folder = tmp_path_factory.mktemp("rewrites")
    with pytest.MonkeyPatch.context() as patch:
        for rewrite in ("reorder_gelu", "order_for_cpus"):
            patch.setattr(onnx_writer, rewrite, lambda graph: None)
        for precision in ("fp32", "fp16"):
            model = ir.load(traced(precision))
            finish(model, in_half=False)
            ir.save(model, folder / f"{precision}.onnx")
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
    for applied, gelu, erf in (((reorder_gelu,), count, 0), ((), 0, count)):  # without it: until ONNX Runtime learns
        fused = [node.op_type for node in optimised(rewritten(untouched, tmp_path / "m.onnx", *applied))]
        assert (fused.count("Gelu"), fused.count("Erf")) == (gelu, erf)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_order_of_gelus_factors_changes_nothing(untouched, tmp_path, precision):
    path = rewritten(untouched, tmp_path / "m.onnx", reorder_gelu, precision=precision)
    for one, other in zip(answers(path), answers(untouched / f"{precision}.onnx"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_came_in_fp16_take_half_the_room_and_give_the_same_bits(untouched, tmp_path):
    path = rewritten(untouched, tmp_path / "m.onnx", store_in_half)
    sizes = path.stat().st_size, (untouched / "fp32.onnx").stat().st_size
    assert sizes[0] < 0.7 * sizes[1], sizes
    levels = ort.GraphOptimizationLevel
    for level in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_ALL):
        for one, other in zip(answers(path, level), answers(untouched / "fp32.onnx", level), strict=True):
            np.testing.assert_array_equal(one, other)
    # Weights that are not folded are none that ONNX Runtime packs: it adds up in another order.
    for one, other in zip(answers(path), answers(untouched / "fp32.onnx"), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-7)


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


def test_an_export_does_both(plain, untouched):
    assert "Gelu" in [node.op_type for node in optimised(plain("fp32"))]
    assert plain("fp32").stat().st_size < 0.7 * (untouched / "fp32.onnx").stat().st_size


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_norm_is_expanded_to_divide_by_it(untouched, tmp_path, precision):
    path = rewritten(untouched, tmp_path / "m.onnx", drop_expansions, precision=precision)
    before, after = kinds(untouched / f"{precision}.onnx"), kinds(path)
    # That of the first token stays: a Concat does not broadcast.
    assert before.count("Expand") >= 8 and after.count("Expand") <= 1
    assert len(before) - len(after) == before.count("Expand") - after.count("Expand")
    for one, other in zip(answers(path), answers(untouched / f"{precision}.onnx"), strict=True):
        np.testing.assert_array_equal(one, other)


def graph_of(text):
    return ir.serde.deserialize_model(
        onnx.shape_inference.infer_shapes(
            onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 18]> agraph ' + text), data_prop=True
        )
    )


def run(model, **fed):
    path = ir.serde.serialize_model(model)
    onnx.checker.check_model(path, full_check=True)
    return ort.InferenceSession(path.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, fed)


def test_an_expansion_that_decides_the_shape_stays():
    text = """(float[1, 3] x, float[1] y) => (float[4, 3] z)
        <int64[2] shape = {4, 3}> { wide = Expand(x, shape) z = Mul(wide, y) }"""
    fed = {"x": np.array([[1, 2, 3]], np.float32), "y": np.array([2], np.float32)}
    model = graph_of(text)
    drop_expansions(model.graph)
    assert [node.op_type for node in model.graph] == ["Expand", "Mul"]
    np.testing.assert_array_equal(run(model, **fed)[0], np.full((4, 3), [2, 4, 6]))


GRID = """(float[2, 3, 4, 5] x) => (float[2, 20, 3] z)
    <int64[3] shape = {2, 3, 20}> { flat = Reshape(x, shape) z = Transpose<perm = [0, 2, 1]>(flat) }"""
TOKENS = """(float[2, 20, 3] x) => (float[2, 3, 4, 5] z)
    <int64[4] shape = {2, 3, 4, 5}> { turned = Transpose<perm = [0, 2, 1]>(x) z = Reshape(turned, shape) }"""


@pytest.mark.parametrize(("text", "order"), [(GRID, ["Transpose", "Reshape"]), (TOKENS, ["Reshape", "Transpose"])])
def test_channels_are_moved_where_the_grid_is_whole(text, order):
    before, model = graph_of(text), graph_of(text)
    flatten_channels_last(model.graph)
    assert [node.op_type for node in model.graph] == order
    shape = [2, 3, 4, 5] if text == GRID else [2, 20, 3]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(run(model, x=x)[0], run(before, x=x)[0])


@pytest.mark.parametrize(
    "text",
    [
        # It joins other axes than those of a grid.
        GRID.replace("{2, 3, 20}", "{2, 20, 3}").replace("[2, 20, 3] z", "[2, 3, 20] z"),
        # Something else reads what lies between.
        GRID.replace("=> (", "=> (float[2, 3, 20] other, ").replace("z = T", "other = Relu(flat) z = T"),
    ],
)
def test_other_reshapes_stay_where_they_are(text):
    model = graph_of(text)
    before = [node.op_type for node in model.graph]
    flatten_channels_last(model.graph)
    assert [node.op_type for node in model.graph] == before


def test_the_adapters_grid_is_kept_channels_last_in_an_export(untouched, tmp_path):
    path = rewritten(untouched, tmp_path / "m.onnx", flatten_channels_last)
    orders = [list(node.attribute[0].ints) for node in onnx.load(path).graph.node if node.op_type == "Transpose"]
    assert [0, 3, 1, 2] in orders and [0, 2, 3, 1] in orders
    for one, other in zip(answers(path), answers(untouched / "fp32.onnx"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_large_norms_are_spelled_out(untouched, tmp_path, monkeypatch, precision):
    source = untouched / f"{precision}.onnx"
    norms = kinds(source).count("ReduceL2")
    assert norms
    path = rewritten(untouched, tmp_path / "m.onnx", spell_out_norms, precision=precision)
    assert kinds(path).count("ReduceL2") == norms, "none is large here"
    monkeypatch.setattr(rewrites, "SPELLED_OUT_FROM", 1)
    path = rewritten(untouched, tmp_path / "m.onnx", spell_out_norms, precision=precision)
    assert kinds(path).count("ReduceL2") == 0 and kinds(path).count("Sqrt") >= norms
    for one, other in zip(answers(path), answers(source), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 if precision == "fp32" else 1e-3)


def test_together_they_leave_the_results_alone(untouched, tmp_path, monkeypatch):
    monkeypatch.setattr(rewrites, "SPELLED_OUT_FROM", 1)
    path = rewritten(untouched, tmp_path / "m.onnx", order_for_cpus, reorder_gelu, store_in_half)
    assert len(kinds(path)) != len(kinds(untouched / "fp32.onnx"))
    for one, other in zip(answers(path), answers(untouched / "fp32.onnx"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_pad_is_left_beside_a_convolution(tmp_path):
    """The exporter's own optimiser merges it; a Pad on its own would break a quantised chain."""

    class Padded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, 2)

        def forward(self, x):
            return self.conv(torch.nn.functional.pad(x, (0, 1, 0, 1)))

    x = torch.randn(1, 3, 8, 8)
    module = Padded().eval()
    torch.onnx.export(module, (x,), tmp_path / "m.onnx", dynamo=True, opset_version=18, optimize=True, verbose=False)
    (conv,) = onnx.load(tmp_path / "m.onnx").graph.node
    pads = next(list(attribute.ints) for attribute in conv.attribute if attribute.name == "pads")
    assert (conv.op_type, pads) == ("Conv", [0, 0, 1, 1])
    found = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found[0], module(x).detach().numpy(), atol=1e-5)
