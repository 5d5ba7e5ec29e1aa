"""A small graph with a stem, quantised in each way: what of it is, what is not, and how close the answers stay."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantised_nodes import quantised_convolutions, quantised_layers

from kanoclip.export.checks import check_graph
from kanoclip.export.quantisation import calibration, sensitivity
from kanoclip.export.quantisation.calibration import input_moments
from kanoclip.export.quantisation.quantize import quantizable, quantize
from kanoclip.export.quantisation.stem import convolutions

PRECISIONS = ("int8", "int8-cpu", "fp8")
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


def silent(step, share):
    pass


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
        for name in PRECISIONS:
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
