from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from kanoclip.export.checks import check_graph
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.runtime.errors import ExportError
from kanoclip.train.model.kanoclip import to_pixels

SIZE = (48, 48)


def session(path):
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path, **inputs):
    return session(path).run(["map", "score"], inputs)


def random_frames(batch):
    return np.random.default_rng(0).integers(0, 256, (batch, *SIZE, 3), dtype=np.uint8)


def expected(model, frames, classes, index):
    with torch.no_grad():
        output = model(to_pixels(torch.from_numpy(frames)), model.text_features(classes)[index])
    return output.map.numpy(), output.score.numpy()


def test_static_graph_of_one_class_takes_only_the_frame(tiny, plain):
    path = plain("fp32")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(i.name, i.type.tensor_type.elem_type) for i in model.graph.input] == [("frame", onnx.TensorProto.UINT8)]
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, *SIZE, 3]
    assert model.opset_import[0].version == 18
    frames = random_frames(1)
    for got, want in zip(run(path, frame=frames), expected(tiny.model, frames, ["bolt"], [0]), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5)
    (descriptor,) = session(path).run(["descriptor"], {"frame": frames})
    with torch.no_grad():
        want = tiny.model.tower.describe(to_pixels(torch.from_numpy(frames)))
    assert descriptor.shape == (1, 36, 128)
    np.testing.assert_allclose(descriptor, want, atol=2e-5)


@pytest.mark.parametrize(
    ("precision", "bound", "batch"),
    [
        ("fp32", 1e-3, BatchSpec(2)),
        pytest.param("fp16", 1e-2, BatchSpec(3, dynamic=True), marks=pytest.mark.nightly),
        pytest.param("bf16", None, BatchSpec(), marks=pytest.mark.nightly),  # which no CPU provider runs
    ],
)
def test_a_stems_graph_gives_the_models_map_score_and_descriptors(tiny_stem, tmp_path, precision, bound, batch):
    path, model = tmp_path / "model.onnx", tiny_stem.model
    write_onnx(DeployGraph(model, ["bolt"], precision), (64, 64), batch, 18, path)
    facts = check_graph(path, precision)
    # 3 blocks of the original path, 3 of the local one, and the last block's two; the head has some too.
    assert facts.attention_blocks >= 8
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert "Conv" in operators and "BatchNormalization" not in operators
    if bound is None:
        return
    for count in (1, 3) if batch.dynamic else (2,):
        frames = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        maps, scores, descriptors = session(path).run(["map", "score", "descriptor"], {"frame": frames})
        pixels = to_pixels(torch.from_numpy(frames))
        with torch.no_grad():
            want, described = model(pixels, model.text_features(["bolt"])), model.tower.describe(pixels).numpy()
        np.testing.assert_allclose(maps, want.map, atol=bound)
        np.testing.assert_allclose(scores, want.score, atol=bound)
        assert descriptors.dtype == np.float32 and descriptors.shape == (count, 64, 264)
        assert (descriptors * described).sum(-1).min() > 1 - bound


@pytest.mark.nightly
@pytest.mark.parametrize("opset", [19, 20, 21])
def test_later_opsets_give_the_same(tiny, tmp_path, opset):
    path = tmp_path / "model.onnx"
    write_onnx(DeployGraph(tiny.model, ["bolt"], "fp16"), SIZE, BatchSpec(), opset, path)
    assert onnx.load(path).opset_import[0].version == opset
    check_graph(path, "fp16")
    frames = random_frames(1)
    for got, want in zip(run(path, frame=frames), expected(tiny.model, frames, ["bolt"], [0]), strict=True):
        np.testing.assert_allclose(got, want, atol=5e-3)


@pytest.mark.nightly
def test_dynamic_batch_of_several_classes(tiny, tmp_path):
    path, classes = tmp_path / "model.onnx", ["bolt", "nut"]
    write_onnx(DeployGraph(tiny.model, classes, "fp32"), SIZE, BatchSpec(4, dynamic=True), 18, path)
    for batch in (1, 2, 3, 4):
        frames = random_frames(batch)
        index = np.array([1, 0, 1, 1][:batch], dtype=np.int64)
        got = run(path, frame=frames, class_index=index)
        for value, want in zip(got, expected(tiny.model, frames, classes, index), strict=True):
            np.testing.assert_allclose(value, want, atol=2e-5)


def test_nothing_of_the_exporting_machine_is_in_the_file(plain):
    content = plain("fp16").read_bytes()
    assert b"forward" not in content and b".py" not in content


def test_text_encoder_prompts_and_text_self_attention_are_gone(tiny, plain):
    stored = sum(int(np.prod(t.dims)) for t in onnx.load(plain("fp32")).graph.initializer)
    model = tiny.model
    baked = {"text_norm", "text_qkv", "text_out", "cross_text_norm", "text_to_visual_kv", "visual_to_text_q"}
    needed = sum(p.numel() for p in model.tower.parameters())
    needed += sum(p.numel() for n, p in model.head.named_parameters() if not baked & set(n.split(".")))
    constants = 4 * 2 * 64 * 2 + 2 * 64 + 2 * 48 * 6 + 2000  # text states, F_text, smoothing matrices, shapes
    assert needed - 64 * 300 < stored < needed + constants


def test_unknown_opset_is_refused(tiny, tmp_path):
    with pytest.raises(ExportError, match="opset 30"):
        write_onnx(DeployGraph(tiny.model, ["bolt"], "fp32"), SIZE, BatchSpec(), 30, tmp_path / "model.onnx")


def test_no_constant_is_transposed_at_run_time_and_nodes_say_where_they_come_from(plain):
    graph = onnx.load(plain("fp16")).graph
    constants = {tensor.name for tensor in graph.initializer}
    assert not [node.name for node in graph.node if node.op_type == "Transpose" and node.input[0] in constants]
    large = [tensor for tensor in graph.initializer if len(tensor.raw_data) > 1000]
    contents = [(*tensor.dims, bytes(tensor.raw_data)) for tensor in large]
    assert len(set(contents)) == len(contents), "a matrix that two paths use is there once"
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    for module in ("tower.blocks.0.fc/", "head.stages.0.deformable.value/", "head.adapter.up/"):
        assert any(name.startswith(module) for name in names), module


def test_an_fp16_layer_norm_computes_in_float32_without_casts_around_it(plain):
    graph = onnx.load(plain("fp16")).graph
    makers = {name: node for node in graph.node for name in node.output}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    halves = [norm for norm in norms if types[norm.output[0]] == onnx.TensorProto.FLOAT16]
    assert len(halves) > len(norms) // 2, "the others are of streams that are float32 themselves"
    for norm in norms:
        stash = [attribute.i for attribute in norm.attribute if attribute.name == "stash_type"]
        assert stash in ([], [onnx.TensorProto.FLOAT]), "float32 inside"
        readers = [node for node in graph.node if norm.output[0] in node.input]
        from_half = types.get(makers[norm.input[0]].input[0]) == onnx.TensorProto.FLOAT16
        around = makers[norm.input[0]].op_type == "Cast" and from_half and {one.op_type for one in readers} == {"Cast"}
        assert not around, norm.name


def test_of_a_cross_attention_in_fp16_the_share_of_the_abnormal_state_alone_is_float32(plain):
    graph = onnx.load(plain("fp16")).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    for stage in range(4):
        own = [node for node in graph.node if node.name.startswith(f"head.stages.{stage}/")]
        kinds = {
            kind: {types[node.output[0]] for node in own if node.op_type == kind}
            for kind in ("Sigmoid", "Softmax", "MatMul")
        }
        half, whole = {onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT}
        assert kinds == {"Sigmoid": whole, "Softmax": half, "MatMul": half}, stage
        # Into the sigmoid, out of it, and into the sum with the text's tokens, which are float32 by themselves.
        assert sum(node.op_type == "Cast" for node in own) == 3
        assert not any(node.op_type == "ReduceSum" for node in own), "which is written with two casts"
