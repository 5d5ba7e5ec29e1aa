from __future__ import annotations

import pytest
import torch

from kanoclip.export.graph import SHIFT, DeployGraph, fold_preprocessing
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.model.layers import LayerNorm

CLASSES = ("hazelnut", "printed circuit board", "cable")


def frames(batch: int, size=(48, 48), seed=0):
    return torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_folding_equals_convolution_over_normalised_rgb():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 10, 8, stride=8, bias=False).double()
    frame = frames(2)
    matrix, bias = fold_preprocessing(convolution.weight.detach())
    blocks = (frame.double() - SHIFT).unflatten(2, (6, 8)).unflatten(1, (6, 8))
    patches = blocks.transpose(2, 3).flatten(3).flatten(1, 2)
    folded = patches @ matrix.double() + bias.double()
    wanted = convolution(to_pixels(frame).double()).flatten(2).transpose(1, 2)
    torch.testing.assert_close(folded, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("value", [0, 255])
def test_folding_is_exact_at_the_ends_of_the_range(tiny, value):
    frame = torch.full((1, 48, 48, 3), value, dtype=torch.uint8)
    model = tiny.model
    with torch.no_grad():
        got = DeployGraph(model, CLASSES[:1], "fp32")(frame)
        want = model(to_pixels(frame), model.text_features(CLASSES[:1]))
    torch.testing.assert_close(got[0], want.map, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vv": False},
        {"bicmci": False},
        {"conv_adapter": False},
        {"global_token": "local"},
        {"prompts": "template"},
        {"prompts": "handcrafted"},
        {"size": (48, 80)},
    ],
)
def test_fp32_graph_equals_model(make_tiny, options):
    model = make_tiny(**options).model
    frame = frames(2, model.config.image_size)
    with torch.no_grad():
        got_map, got_score = DeployGraph(model, CLASSES[:1], "fp32")(frame)
        want = model(to_pixels(frame), model.text_features(CLASSES[:1]))
    assert want.map.std() > 1e-3
    torch.testing.assert_close(got_map, want.map, rtol=0, atol=1e-5)
    torch.testing.assert_close(got_score, want.score, rtol=0, atol=1e-5)


def test_each_picture_of_a_batch_gets_its_own_class(tiny):
    model = tiny.model
    frame, index = frames(1).expand(3, -1, -1, -1), torch.tensor([2, 0, 1])
    text = model.text_features(CLASSES)
    with torch.no_grad():
        _, scores = DeployGraph(model, CLASSES, "fp32")(frame, index)
        want = torch.cat([model(to_pixels(frame[:1]), text[i : i + 1]).score for i in index])
    assert len(set(scores.tolist())) == 3
    torch.testing.assert_close(scores, want, rtol=0, atol=1e-5)


def test_baking_leaves_the_model_untouched(tiny):
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    DeployGraph(tiny.model, CLASSES, "fp16")
    after = tiny.model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_graph_keeps_its_float32_islands(tiny, precision, dtype):
    graph = DeployGraph(tiny.model, CLASSES, precision)
    norms = {id(p) for m in graph.modules() if isinstance(m, LayerNorm) for p in m.parameters()}
    convolutions = {id(p) for m in graph.modules() if isinstance(m, torch.nn.Conv2d) for p in m.parameters()}
    assert norms
    for name, parameter in graph.named_parameters():
        single = id(parameter) in norms or (id(parameter) in convolutions and precision == "bf16")
        assert parameter.dtype == (torch.float32 if single else dtype), name
    assert graph.head.smoothing.k_rows.dtype == torch.float32
    assert graph.head.stages[0].deformable.rows.dtype == torch.float32
    assert graph.text_tokens_0.dtype == torch.float32 and graph.text_probes_0.dtype == dtype


@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("bf16", 5e-2)])
def test_half_graph_stays_near_the_model(tiny, precision, bound):
    frame = frames(2)
    with torch.no_grad():
        got_map, got_score = DeployGraph(tiny.model, CLASSES[:1], precision)(frame)
        want = tiny.model(to_pixels(frame), tiny.model.text_features(CLASSES[:1]))
    assert got_map.dtype == got_score.dtype == torch.float32
    assert 0 < (got_map - want.map).abs().max() < bound
    assert (got_score - want.score).abs().max() < bound
