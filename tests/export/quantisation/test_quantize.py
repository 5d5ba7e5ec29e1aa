from __future__ import annotations

import math
from functools import cache

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from quantised_nodes import quantised_layers

from kanoclip.export.checks import check_graph, count_attention
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.quantisation import sensitivity
from kanoclip.export.quantisation.calibration import Moments, round_weights
from kanoclip.export.quantisation.quantize import quantizable, quantize
from kanoclip.export.quantisation.sensitivity import Layers, leave_alone, smallest_within
from kanoclip.runtime.errors import ExportError

SIZE = (48, 48)
STORED = {"int8": TensorProto.INT8, "int8-cpu": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(count)]


def silent(step, share):
    pass


def answers(path, frame):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"frame": frame[None]})


@pytest.fixture(scope="module", params=list(STORED))
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def source(plain, precision):
    """What quantisation begins with: one graph for tensor cores, one for CPUs."""
    return plain("fp32" if precision == "int8-cpu" else "fp16", in_half=False)


@pytest.fixture(scope="module")
def made(precision, source, tmp_path_factory):
    """(precision, file, choice, reports), every block quantised."""
    target = tmp_path_factory.mktemp(precision) / "m.onnx"
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "TARGET", math.inf)
        choice = quantize(source, target, precision, frames(4), 1, lambda *told: seen.append(told))
    return precision, target, choice, seen


def test_each_layer_is_counted_to_its_block(source):
    layers = quantizable(onnx.load(source).graph)
    # 3 blocks of 4 layers, of which two have their `out` twice, once for each path; the last block has its projections
    # apart; then 5 readings of the tower's projection.
    numbers = sorted(layers.values())
    assert set(numbers) == {0, 1, 2, 3, 4}
    assert numbers.count(0) >= 4 and numbers.count(4) == 5
    for block in (0, 1, 2):
        assert {name.split("/")[0] for name, number in layers.items() if number == block} == {
            "graph",  # queries, keys and values, which carry no module's name
            *(f"tower.blocks.{block}.{part}" for part in ("out", "fc", "proj")),
        }
    assert not any(name.startswith("head") for name in layers)


def test_the_towers_matrices_are_quantised_and_nothing_else_is(made, source):
    precision, target, choice, seen = made
    model = onnx.load(target)
    onnx.checker.check_model(model, full_check=True)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    assert quantised_layers(model.graph) == set(quantizable(onnx.load(source).graph))
    assert len(quantised_layers(model.graph)) == choice.layers and choice.blocks_unquantised == 0
    dequantise = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    weights = [constants[node.input[0]] for node in dequantise if node.input[0] in constants]
    assert weights and all(weight.data_type == STORED[precision] for weight in weights)
    assert all(len(weight.raw_data) == math.prod(weight.dims) for weight in weights), "one byte each"
    scales = [numpy_helper.to_array(constants[node.input[1]]) for node in dequantise]
    assert {scale.dtype for scale in scales} == {np.dtype(np.float32 if precision == "int8-cpu" else np.float16)}
    assert {scale.ndim for scale in scales} == {0, 1}, "activations per tensor, weights per channel"
    calibration = [share for step, share in seen if step == f"calibrating {precision}"]
    assert calibration == [0.25, 0.5, 0.75, 1.0]
    check_graph(target, precision)


def test_weights_are_rounded_to_the_nearest_of_their_channel(made, source):
    precision, target, _, _ = made
    plain = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in onnx.load(source).graph.initializer}
    graph = onnx.load(target).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        exact = plain[node.input[0].removesuffix("_quantized")]
        scale = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
        kept = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32) * scale
        largest = np.abs(exact).max(axis=0)
        # int8: half a step of the channel's range. float8 e4m3: half of 1/8 of the value, or of its smallest step.
        step = largest / 127 / 2 if precision != "fp8" else np.maximum(np.abs(exact) / 16, 2**-10 * scale)
        assert (np.abs(kept - exact) <= step * 1.02 + largest * 1e-3).all()


def test_each_pair_of_an_activation_has_one_consumer(made):
    graph = onnx.load(made[1]).graph
    constants = {tensor.name for tensor in graph.initializer}
    uses = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    activations = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] not in constants]
    assert activations and all(uses[node.output[0]] == 1 for node in activations)
    assert constants <= set(uses), "no weight is kept that nothing reads"


def test_for_cpus_activations_are_uint8_with_their_own_zero(made):
    precision, target, _, _ = made
    graph = onnx.load(target).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    zeros = [numpy_helper.to_array(constants[n.input[2]]) for n in graph.node if n.op_type == "QuantizeLinear"]
    if precision == "int8-cpu":
        assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}
        assert len({int(zero) for zero in zeros}) > 1, "each range has its own: GELU's outputs are hardly negative"
    else:
        assert not any(zero.any() for zero in zeros)


def test_answers_stay_close(made, source):
    for frame in frames(3, seed=9):
        one, other = answers(source, frame), answers(made[1], frame)
        assert 0 < np.abs(one[0] - other[0]).max() < 0.1 and np.abs(one[1] - other[1]).max() < 0.05


def test_as_few_first_blocks_as_the_target_asks_for_are_left_alone(made, source, tmp_path, monkeypatch):
    precision = made[0]
    layers = quantizable(onnx.load(source).graph)
    # Which drift random weights have does not matter here: two blocks are said to be enough.
    monkeypatch.setattr(sensitivity, "smallest_within", lambda drift, most, target: min(2, most))
    fewer = quantize(source, tmp_path / "m.onnx", precision, frames(4), 1, silent)
    assert (fewer.blocks_unquantised, fewer.blocks, fewer.pictures) == (2, 4, 4)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert quantised_layers(graph) == {name for name, block in layers.items() if block >= fewer.blocks_unquantised}
    assert fewer.layers == len(quantised_layers(graph))
    check_graph(tmp_path / "m.onnx", precision)
    # The drift that is reported is that of the file.
    found = max(np.abs(answers(source, f)[0] - answers(tmp_path / "m.onnx", f)[0]).max() for f in frames(4))
    assert found == pytest.approx(fewer.map_drift, abs=1e-6)


def test_a_target_out_of_reach_still_quantises_and_says_so(source, precision, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "TARGET", 0.0)
    seen = []
    choice = quantize(source, tmp_path / "m.onnx", precision, frames(1), 1, lambda *told: seen.append(told))
    assert choice.blocks_unquantised < choice.blocks and choice.map_drift > choice.target == 0
    assert choice.layers > 0 and choice.pictures == 1
    assert all(0 < share <= 1 for _, share in seen)


@pytest.mark.parametrize("most", [0, 1, 3, 9, 23])
def test_the_smallest_number_within_the_target_is_found_in_few_tries(most):
    for wanted in range(most + 1):
        tried = []

        def drift(number, tried=tried, wanted=wanted):
            tried.append(number)
            return 0.01 if number >= wanted else 0.03

        assert smallest_within(drift, most, 0.02) == wanted
        assert len(tried) == len(set(tried)) <= (most + 1).bit_length()


def test_out_of_reach_the_least_drift_of_those_tried_is_taken():
    assert smallest_within([0.5, 0.3, 0.2, 0.4].__getitem__, 3, 0.1) == 2
    assert smallest_within(lambda number: math.nan, 3, 0.1) in range(4)


def test_all_layers_left_alone_are_the_plain_graph_again(made, source):
    plain = onnx.shape_inference.infer_shapes(onnx.load(source))
    bare = leave_alone(onnx.load(made[1]), plain, quantizable(plain.graph))
    # The quantiser puts the nodes into another order in which they can run.
    assert sorted((n.op_type, list(n.input), list(n.output)) for n in bare.graph.node) == sorted(
        (n.op_type, list(n.input), list(n.output)) for n in plain.graph.node
    )
    assert {t.name for t in bare.graph.initializer} == {t.name for t in plain.graph.initializer}


@pytest.fixture(scope="module")
def several(tiny, tmp_path_factory):
    """Writes the plain graph of two classes; each once, whatever the order of the tests."""
    folder = tmp_path_factory.mktemp("several")

    @cache
    def write(batch, precision):
        path = folder / f"{precision}-{batch.dynamic}.onnx"
        graph = DeployGraph(tiny.model, ["bolt", "nut"], precision)
        write_onnx(graph, SIZE, batch, 18 if precision == "int8-cpu" else 19, path, in_half=False)
        return path

    return write


@pytest.mark.nightly
@pytest.mark.parametrize("batch", [BatchSpec(3), BatchSpec(3, dynamic=True)])
def test_batches_and_several_classes(several, tmp_path, precision, batch):
    source = several(batch, "int8-cpu" if precision == "int8-cpu" else "int8")  # fp8's plain graph is int8's
    quantize(source, tmp_path / "b.onnx", precision, frames(2), 1 if batch.dynamic else 3, silent)
    session = ort.InferenceSession(str(tmp_path / "b.onnx"), providers=["CPUExecutionProvider"])
    fed = {"frame": np.stack(frames(3)), "class_index": np.array([0, 1, 0])}
    maps, scores = session.run(["map", "score"], fed)
    assert maps.shape == (3, *SIZE) and np.isfinite(scores).all()
    assert check_graph(tmp_path / "b.onnx", precision).attention_blocks == count_attention(onnx.load(source).graph)


def test_without_images_there_is_nothing_to_calibrate_on(source, tmp_path, precision):
    with pytest.raises(ExportError, match=f"{precision} needs at least one image"):
        quantize(source, tmp_path / "b.onnx", precision, [], 1, silent)
    assert not (tmp_path / "b.onnx").exists()


def test_zero_points_are_checked_where_they_lie_beside_the_graph(made, tmp_path):
    """As a wide model's do: onnx moves every tensor of a kilobyte out."""
    model = onnx.load(made[1])
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    check_graph(tmp_path / "m.onnx", made[0])


def test_a_graph_without_the_format_or_with_zero_points_is_refused(made, source, tmp_path):
    precision, target, _, _ = made
    with pytest.raises(ExportError, match="quantises nothing"):
        check_graph(source, precision)
    other = "fp8" if precision != "fp8" else "int8-cpu"
    why = "a float32 MatMul" if precision == "int8-cpu" else ".* of another format"
    with pytest.raises(ExportError, match=f"the {other} graph holds {why}"):
        check_graph(target, other)
    model = onnx.load(target)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if stored.get(node.input[0], 0) == STORED[precision])
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[2])
    dtype = np.int8 if precision != "fp8" else ml_dtypes.float8_e4m3fn
    zero.CopyFrom(numpy_helper.from_array(np.full(list(zero.dims), 3, dtype), zero.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="zero point"):
        check_graph(tmp_path / "m.onnx", precision)


def test_groups_are_left_alone_with_what_reads_them():
    layers = Layers({"a": 0, "b": 1, "c": 2, "d": 3}, {"pool": 0, "cat": 1}, 2)
    assert layers.blocks == 1
    assert [layers.first(groups) for groups in range(4)] == [
        set(),
        {"a", "pool"},
        {"a", "b", "pool", "cat"},
        {"a", "b", "c", "pool", "cat"},
    ]


def test_weights_are_rounded_for_the_outputs_sake():
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((16, 16)) + 0.5
    seen = rng.standard_normal((4000, 4)) @ rng.standard_normal((4, 16)) + 0.1 * rng.standard_normal((4000, 16)) + 2
    weight = mixed.astype(np.float32)[:, :, None, None]
    scale = np.abs(mixed).max(axis=1) / 127
    mean = seen.mean(axis=0)
    rounded, shift = round_weights(weight, scale, Moments(mean[None], np.cov(seen.T, bias=True)[None]))
    assert rounded.dtype == np.int8 and rounded.shape == weight.shape and shift.shape == (16,)

    def lost(whole, more):
        return seen @ (mixed - whole[:, :, 0, 0] * scale[:, None]).T - more

    nearest = np.round(mixed / scale[:, None])[:, :, None, None]
    assert np.abs(lost(rounded, shift).mean(axis=0)).max() < 1e-5
    assert np.square(lost(rounded, shift)).mean() < 0.3 * np.square(lost(nearest, 0)).mean()
    # It is still a rounding: no weight is far from its own.
    assert np.abs(rounded - nearest).max() < 30


def test_inputs_that_never_change_round_to_the_nearest():
    weight = np.random.default_rng(0).standard_normal((4, 1, 3, 3)).astype(np.float32)
    scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
    rounded, shift = round_weights(weight, scale, Moments(np.zeros((4, 9)), np.zeros((4, 9, 9))))
    np.testing.assert_array_equal(rounded, np.round(weight / scale[:, None, None, None]))
    assert not shift.any()
