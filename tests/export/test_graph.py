from __future__ import annotations

import pytest
import torch

from kanoclip.export.frame_front import PatchFront, StemFront
from kanoclip.export.frame_resize import FrameResize
from kanoclip.export.graph import DeployGraph
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.model.layers import LayerNorm

CLASSES = ("hazelnut", "printed circuit board", "cable")


def frames(batch: int, size=(48, 48), seed=0):
    return torch.randint(0, 256, (batch, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


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
        got_map, got_score, descriptor = DeployGraph(model, CLASSES[:1], "fp32")(frame)
        want = model(to_pixels(frame), model.text_features(CLASSES[:1]))
    assert want.map.std() > 1e-3
    torch.testing.assert_close(got_map, want.map, rtol=0, atol=1e-5)
    torch.testing.assert_close(got_score, want.score, rtol=0, atol=1e-5)
    torch.testing.assert_close(descriptor, model.tower.describe(to_pixels(frame)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"vv": False}, {"global_token": "local"}, {"size": (64, 96)}])
def test_fp32_graph_of_a_stem_equals_the_model(make_tiny_stem, options):
    model = make_tiny_stem(**options).model
    frame = frames(2, model.config.image_size)
    graph = DeployGraph(model, CLASSES[:1], "fp32")
    with torch.no_grad():
        got_map, got_score, descriptor = graph(frame)
        want = model(to_pixels(frame), model.text_features(CLASSES[:1]))
    assert want.map.std() > 1e-3 and isinstance(graph.front, StemFront)
    torch.testing.assert_close(got_map, want.map, rtol=0, atol=1e-4)
    torch.testing.assert_close(got_score, want.score, rtol=0, atol=1e-4)
    torch.testing.assert_close(descriptor, model.tower.describe(to_pixels(frame)), rtol=0, atol=1e-4)
    assert descriptor.shape == (2, 4 * model.tower.grid[0] * model.tower.grid[1], 264)


def test_each_image_of_a_batch_gets_its_own_class(tiny):
    model = tiny.model
    frame, index = frames(1).expand(3, -1, -1, -1), torch.tensor([2, 0, 1])
    text = model.text_features(CLASSES)
    with torch.no_grad():
        _, scores, descriptors = DeployGraph(model, CLASSES, "fp32")(frame, index)
        want = torch.cat([model(to_pixels(frame[:1]), text[i : i + 1]).score for i in index])
    assert len(set(scores.tolist())) == 3
    torch.testing.assert_close(scores, want, rtol=0, atol=1e-5)
    torch.testing.assert_close(descriptors[0], descriptors[2], rtol=0, atol=1e-6)  # no class has a say in them


@pytest.mark.parametrize("kind", ["tiny", "tiny_stem"])
def test_baking_leaves_the_model_untouched(request, kind):
    model = request.getfixturevalue(kind).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    DeployGraph(model, CLASSES, "fp16")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["tiny", "tiny_stem"])
@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_half_graph_keeps_its_float32_islands(request, kind, precision, dtype):
    graph = DeployGraph(request.getfixturevalue(kind).model, CLASSES, precision)
    norms = {id(p) for m in graph.modules() if isinstance(m, LayerNorm) for p in m.parameters()}
    convolutions = {id(p) for m in graph.modules() if isinstance(m, torch.nn.Conv2d) for p in m.parameters()}
    assert norms
    for name, parameter in graph.named_parameters():
        single = id(parameter) in norms or (id(parameter) in convolutions and precision == "bf16")
        assert parameter.dtype == (torch.float32 if single else dtype), name
    assert graph.head.smoothing.k_rows.dtype == torch.float32
    assert graph.head.stages[0].deformable.rows.dtype == torch.float32
    assert graph.text_tokens_0.dtype == torch.float32 and graph.text_probes_0.dtype == dtype


@pytest.mark.parametrize("kind", ["tiny", "tiny_stem"])
@pytest.mark.parametrize(("precision", "bound"), [("fp16", 5e-3), ("bf16", 5e-2)])
def test_half_graph_stays_near_the_model(request, kind, precision, bound):
    model = request.getfixturevalue(kind).model
    frame = frames(2, model.config.image_size)
    with torch.no_grad():
        outputs = DeployGraph(model, CLASSES[:1], precision)(frame)
        want = model(to_pixels(frame), model.text_features(CLASSES[:1]))
        described = model.tower.describe(to_pixels(frame))
    got_map, got_score, descriptor = outputs
    assert {output.dtype for output in outputs} == {torch.float32}
    assert 0 < (got_map - want.map).abs().max() < bound
    assert (got_score - want.score).abs().max() < bound
    assert (descriptor * described).sum(-1).min() > 1 - bound
    torch.testing.assert_close(descriptor.norm(dim=-1), torch.ones(descriptor.shape[:2]))


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("fp16", 1e-2)])
def test_a_graph_of_a_stem_that_resizes_is_the_model_on_the_resized_frame(tiny_stem, precision, bound):
    """A stem subtracts 127 where a patch convolution takes 128: the resize must not care."""
    model, camera = tiny_stem.model, (100, 150)
    frame = frames(2, camera)
    small = FrameResize(camera, (64, 64))(frame.numpy())
    with torch.no_grad():
        got_map, got_score, descriptor = DeployGraph(model, CLASSES[:1], precision, camera)(frame)
        want = model(to_pixels(small), model.text_features(CLASSES[:1]))
        described = model.tower.describe(to_pixels(small))
    assert (got_map - want.map).abs().max() < bound and (got_score - want.score).abs().max() < bound
    assert (descriptor * described).sum(-1).min() > 1 - bound


def test_a_plain_vit_keeps_its_patch_front(tiny):
    assert isinstance(DeployGraph(tiny.model, CLASSES[:1], "fp32").front, PatchFront)
