from __future__ import annotations

import math
from functools import cache

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from kanoclip.export.checks import check_graph, count_attention
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.quantisation import calibration, sensitivity
from kanoclip.export.quantisation.calibration import Moments, input_moments, round_weights
from kanoclip.export.quantisation.quantize import convolutions, quantizable, quantize
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


def quantised_layers(graph):
    producers = {name: node for node in graph.node for name in node.output}
    return {
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and all(producers.get(name, node).op_type == "DequantizeLinear" for name in node.input[:2])
    }


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


CHANNELS = 8
PROJECTION = "front.stem.token_project"


def stem_graph(half=False):
    """A small graph with everything that a stem's has: two stages, a residual sum, pools and tokens that read them."""
    rng = np.random.default_rng(1)
    kind = np.float16 if half else np.float32
    nodes, constants = [], []

    def constant(name, values):
        constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(name, x, inputs, outputs, *, kernel=1, stride=1, groups=1, relu=True, pads=None):
        weight = rng.standard_normal((outputs, inputs // groups, kernel, kernel)) / np.sqrt(inputs // groups) / kernel
        read = [constant(f"{name}.conv.weight", weight.astype(kind)), constant(f"{name}.conv.bias", bias(outputs))]
        around = pads or [kernel // 2] * 4
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "group": groups, "pads": around}
        nodes.append(helper.make_node("Conv", [x, *read], [f"{name}.y"], f"{name}.conv/node_conv", **shape))
        if not relu:
            return f"{name}.y"
        nodes.append(helper.make_node("Clip", [f"{name}.y", "zero", "six"], [f"{name}.r"], f"{name}/node_relu6"))
        return f"{name}.r"

    def bias(outputs):
        return (rng.standard_normal(outputs) / 4).astype(kind)

    def node(op, inputs, output, name, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    constant("zero", kind(0)), constant("six", kind(6)), constant("shift", kind(127)), constant("gain", kind(1 / 128))
    x = node("Cast", ["frame"], "cast", "graph/cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    x = node("Mul", [node("Sub", [x, "shift"], "shifted", "graph/sub"), "gain"], "scaled", "graph/mul")
    x = node("Transpose", [x], "image", "front/transpose", perm=[0, 3, 1, 2])
    trunk = "front.stem.trunk"
    x = conv(f"{trunk}.first", x, 3, CHANNELS, kernel=3, stride=2, pads=[0, 0, 1, 1])
    inside = f"{trunk}.groups.0.0.layers"
    x = conv(f"{inside}.0", x, CHANNELS, CHANNELS, kernel=3, groups=CHANNELS)
    first = conv(f"{inside}.1", x, CHANNELS, CHANNELS, relu=False)
    inside = f"{trunk}.groups.1.0.layers"
    x = conv(f"{inside}.0", first, CHANNELS, 2 * CHANNELS)
    x = conv(f"{inside}.1", x, 2 * CHANNELS, 2 * CHANNELS, kernel=5, stride=2, groups=2 * CHANNELS, pads=[1, 1, 2, 2])
    short = conv(f"{inside}.2", x, 2 * CHANNELS, CHANNELS, relu=False)
    inside = f"{trunk}.groups.1.1.layers"
    x = conv(f"{inside}.0", short, CHANNELS, 2 * CHANNELS)
    x = conv(f"{inside}.1", x, 2 * CHANNELS, 2 * CHANNELS, kernel=3, groups=2 * CHANNELS)
    x = conv(f"{inside}.2", x, 2 * CHANNELS, CHANNELS, relu=False)
    second = node("Add", [short, x], "second", f"{trunk}.groups.1.1/node_add")
    pooled = node("MaxPool", [first], "pooled", "front/pool", kernel_shape=[2, 2], strides=[2, 2])
    x = node("Concat", [pooled, second], "stages", "front.stem/cat", axis=1)
    x = node("Transpose", [x], "turned", "front.stem/transpose", perm=[0, 2, 3, 1])
    x = node("Reshape", [x, constant("cells", np.array([1, 64, 2 * CHANNELS]))], "tokens", "front.stem/view")
    weight = rng.standard_normal((2 * CHANNELS, 2 * CHANNELS)).astype(kind) / 4
    x = node(
        "MatMul", [x, constant("token_weight", weight.astype(kind))], "projected_tokens", f"{PROJECTION}/node_MatMul"
    )
    for number in range(2):
        weight = rng.standard_normal((2 * CHANNELS, 2 * CHANNELS)).astype(kind) / 4
        name = f"tower.blocks.{number}.fc"
        x = node("MatMul", [x, constant(f"{name}.weight", weight.astype(kind))], name, f"{name}/node_MatMul")
    weight = rng.standard_normal((2 * CHANNELS, 2 * CHANNELS)).astype(kind)
    x = node("MatMul", [x, constant("proj", weight)], "projected", "graph/node_MatMul")
    x = node("Cast", [x], "whole", "graph/whole", to=TensorProto.FLOAT)
    norm = node("ReduceL2", [x, constant("last", np.array([-1]))], "norm", "graph/norm")
    node("Div", [x, norm], "descriptor", "graph/div")
    means = node("ReduceMean", [x, "last"], "means", "graph/mean")
    grid = node("Reshape", [means, constant("grid", np.array([1, 8, 8]))], "grid_of", "graph/view")
    node("Sigmoid", [grid], "map", "head/sigmoid")
    node("ReduceMax", ["map", constant("both", np.array([1, 2]))], "score", "head/max", keepdims=0)
    outputs = {"map": [1, 8, 8], "score": [1], "descriptor": [1, 64, 2 * CHANNELS]}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "stem",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 32, 32, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 19)],
        ir_version=9,
    )


def scenes(count, seed=3):
    """Frames with some structure in them: noise alone has no two inputs that go together."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3))
    return list((coarse.repeat(8, 1).repeat(8, 2) * 0.8 + rng.integers(0, 50, (count, 32, 32, 3))).astype(np.uint8))


@pytest.fixture(scope="module")
def stems(tmp_path_factory):
    """The graph with a stem, plain, and each precision's with everything quantised."""
    folder = tmp_path_factory.mktemp("stems")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "TARGET", math.inf)
        for name in STORED:
            plain, target = folder / f"{name}.plain.onnx", folder / f"{name}.onnx"
            onnx.save(stem_graph(half=name != "int8-cpu"), plain)
            made[name] = plain, target, quantize(plain, target, name, scenes(6), 1, silent)
    return made


def run(path, frame, *, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, fused=None):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    if fused is not None:
        options.optimized_model_filepath = str(fused)
    left_out = [*calibration.WRONG_OPTIMIZERS, "MatMulAddFusion"]  # as the runtime does it
    session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"], disabled_optimizers=left_out)
    return session.run(["map", "descriptor"], {"frame": frame[None]})


def quantised_convolutions(graph):
    producers = {name: node for node in graph.node for name in node.output}
    return {
        node.name
        for node in graph.node
        if node.op_type == "Conv"
        and all(producers[name].op_type == "DequantizeLinear" for name in node.input[:2] if name in producers)
        and node.input[1] in producers
    }


def test_all_convolutions_of_a_stem_but_the_first_are_quantised_and_none_in_fp8(stems):
    for name, (plain, target, choice) in stems.items():
        ours = convolutions(onnx.load(plain).graph)
        assert len(ours) == 8 and set(ours.values()) == {0, 1} and not any(".first." in layer for layer in ours)
        model = onnx.load(target)
        onnx.checker.check_model(model, full_check=True)
        check_graph(target, name)
        assert quantised_convolutions(model.graph) == (set() if name == "fp8" else set(ours))
        assert (choice.stages, choice.stages_unquantised) == ((0, 0) if name == "fp8" else (2, 0))
        assert (choice.blocks, choice.layers) == (2, 3 if name == "fp8" else 11)
        assert choice.descriptor_drift > 0


def test_a_stems_projection_to_tokens_is_left_alone_as_a_patch_embedding_is(stems):
    for plain, target, _ in stems.values():
        assert not any(name.startswith(PROJECTION) for name in quantizable(onnx.load(plain).graph))
        (projection,) = (node for node in onnx.load(target).graph.node if node.name.startswith(PROJECTION))
        assert list(projection.input) == ["tokens", "token_weight"]


def test_for_cpus_biases_are_whole_numbers_and_for_tensorrt_they_are_not(stems):
    for name in ("int8", "int8-cpu"):
        graph = onnx.load(stems[name][1]).graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        producers = {output: node for node in graph.node for output in node.output}
        for node in graph.node:
            if node.name not in quantised_convolutions(graph):
                continue
            bias = node.input[2]
            if name == "int8":
                assert constants[bias].data_type == TensorProto.FLOAT16
                continue
            scales = [numpy_helper.to_array(constants[producers[read].input[1]]) for read in node.input]
            assert constants[producers[bias].input[0]].data_type == TensorProto.INT32
            np.testing.assert_allclose(scales[2], scales[0] * scales[1], rtol=1e-6)


def test_onnx_runtime_makes_one_kernel_of_convolution_relu6_and_rounding(stems, tmp_path):
    run(stems["int8-cpu"][1], scenes(1)[0], fused=tmp_path / "fused.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert (nodes.count("QLinearConv"), nodes.count("QLinearAdd")) == (8, 1)
    # Only the first convolution is left, with its ReLU6.
    assert sum(kind in ("Conv", "FusedConv") for kind in nodes) == 1 and nodes.count("Clip") <= 1


@pytest.mark.parametrize("name", ["int8", "int8-cpu"])
def test_a_quantised_stems_answers_stay_close_on_every_engine(stems, name):
    plain, target, _ = stems[name]
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(target), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for frame in scenes(3, seed=9):
        wanted = run(plain, frame)
        by_openvino = compiled({"frame": frame[None]})
        for found in (
            run(target, frame),
            run(target, frame, level=ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
            [by_openvino["map"], by_openvino["descriptor"]],
        ):
            assert 0 < np.abs(found[0] - wanted[0]).max() < 0.1
            assert ((found[1] * wanted[1]).sum(axis=-1) > 0.97).all()


@pytest.mark.parametrize("name", ["int8", "int8-cpu"])
@pytest.mark.parametrize("alone", [1, 2, 3])
def test_a_stems_first_stages_are_left_alone_before_the_blocks(stems, tmp_path, monkeypatch, name, alone):
    plain = stems[name][0]
    monkeypatch.setattr(sensitivity, "smallest_within", lambda drift, most, target: alone)
    choice = quantize(plain, tmp_path / "m.onnx", name, scenes(6), 1, silent)
    assert (choice.stages_unquantised, choice.blocks_unquantised) == (min(alone, 2), max(alone - 2, 0))
    graph = onnx.load(tmp_path / "m.onnx").graph
    stages = convolutions(onnx.load(plain).graph)
    assert quantised_convolutions(graph) == {layer for layer, stage in stages.items() if stage >= alone}
    blocks = quantizable(onnx.load(plain).graph)
    assert quantised_layers(graph) == {layer for layer, block in blocks.items() if block >= alone - 2}
    check_graph(tmp_path / "m.onnx", name)
    if alone >= 2:
        # Nothing of the stem was touched: its pools and sums read what they read before, its biases are their own.
        before = {node.name: list(node.input) for node in onnx.load(plain).graph.node}
        for node in graph.node:
            if node.name.startswith("front"):
                assert list(node.input) == before[node.name]
    found = max(np.abs(run(plain, f)[0] - run(tmp_path / "m.onnx", f)[0]).max() for f in scenes(6)[:: 6 // 4])
    assert found <= choice.map_drift * 1.5 + 1e-4


def test_a_drift_of_the_descriptors_alone_leaves_stages_alone(stems, tmp_path, monkeypatch):
    plain, _, everything = stems["int8-cpu"]
    target = 1.5 * everything.map_drift  # the map would be content
    monkeypatch.setattr(sensitivity, "TARGET", target)
    monkeypatch.setattr(sensitivity, "DESCRIPTOR_WEIGHT", 1.5 * target / everything.descriptor_drift)
    choice = quantize(plain, tmp_path / "m.onnx", "int8-cpu", scenes(6), 1, silent)
    assert choice.stages_unquantised > 0 and choice.descriptor_drift < everything.descriptor_drift


def test_groups_are_left_alone_with_what_reads_them():
    layers = Layers({"a": 0, "b": 1, "c": 2, "d": 3}, {"pool": 0, "cat": 1}, 2)
    assert layers.blocks == 1
    assert [layers.first(groups) for groups in range(4)] == [
        set(),
        {"a", "pool"},
        {"a", "b", "pool", "cat"},
        {"a", "b", "c", "pool", "cat"},
    ]


def test_moments_are_those_of_what_the_kernel_sees(stems):
    plain = stems["int8-cpu"][0]
    model = onnx.shape_inference.infer_shapes(onnx.load(plain))
    shares = []
    names = convolutions(model.graph)
    moments = input_moments(plain, model, names, scenes(4), 1, shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0] and set(moments) == set(names)
    nodes = {node.name: node for node in model.graph.node}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    types = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(types[name] for node in map(nodes.get, names) for name in node.output)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for name in names:
        (output,) = nodes[name].output
        weight, bias = (constants[read] for read in nodes[name].input[1:])
        groups, inputs = moments[name].mean.shape
        # A convolution's mean is its weights times the mean of what it sees, as no place of these is left out.
        means = (weight.reshape(groups, -1, inputs) * moments[name].mean[:, None]).sum(axis=2).reshape(-1) + bias
        seen = np.mean([session.run([output], {"frame": frame[None]})[0][0] for frame in scenes(4)], axis=(0, 2, 3))
        np.testing.assert_allclose(means, seen, atol=1e-4)
        assert (np.linalg.eigvalsh(moments[name].covariance) > -1e-9).all()


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


def test_a_channel_without_weights_keeps_its_bias(tmp_path, monkeypatch):
    """A scale that such weights alone gave would be too small for the bias to be counted in 32 bits."""
    model = stem_graph()
    dead = "front.stem.trunk.groups.1.0.layers.0.conv"
    for tensor in model.graph.initializer:
        if tensor.name == f"{dead}.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[2] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "plain.onnx")
    monkeypatch.setattr(sensitivity, "TARGET", math.inf)
    quantize(tmp_path / "plain.onnx", tmp_path / "m.onnx", "int8-cpu", scenes(4), 1, silent)
    constants = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer
    }
    bias = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}[f"{dead}.bias"]
    kept = constants[f"{dead}.bias_quantized"] * constants[f"{dead}.bias_scale"].astype(np.float64)
    assert kept[2] == pytest.approx(bias[2], rel=1e-3)
