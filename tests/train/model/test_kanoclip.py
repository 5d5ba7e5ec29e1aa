"""The whole model: preprocessing, what learns, what each option leaves out."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.checkpoint import build_model
from kanoclip.train.model.head import abnormal_share
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig, to_pixels


def test_to_pixels_is_open_clips_normalisation(random):
    frames = random.integers(0, 256, (2, 48, 64, 3), dtype="uint8")
    pixels = to_pixels(torch.from_numpy(frames))
    assert pixels.dtype == torch.float32 and pixels.shape == (2, 3, 48, 64)
    transform = open_clip.image_transform((48, 64), is_train=False)
    for frame, got in zip(frames, pixels, strict=True):
        expected = transform(Image.fromarray(frame[:, :, ::-1].copy()))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_to_pixels_puts_red_first():
    red = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    red[..., 2] = 255  # BGR
    pixels = to_pixels(red)[0, :, 0, 0]
    expected = (torch.tensor([1.0, 0, 0]) - torch.tensor(open_clip.OPENAI_DATASET_MEAN)) / torch.tensor(
        open_clip.OPENAI_DATASET_STD
    )
    torch.testing.assert_close(pixels, expected)


@pytest.mark.parametrize("prompts", ["learned", "template", "handcrafted"])
def test_runs_on_the_device_that_it_was_moved_to(make_model, prompts):
    """`meta` stands for a GPU: it too refuses to mix devices."""
    model = make_model(prompts=prompts).to("meta")
    pixels = to_pixels(torch.empty(2, 48, 48, 3, dtype=torch.uint8, device="meta"))
    output = model(pixels, model.text_features(["nut", "bolt"]))
    assert output.map.shape == (2, 48, 48)
    for value in (output.cells, output.map, output.score):
        assert value.device.type == "meta"


@pytest.mark.parametrize("options", [{}, {"vv": False}, {"global_token": "local"}, {"bicmci": False}])
def test_only_prompts_and_head_learn(make_model, options):
    model = make_model(**options)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"prompts", "head"}
    assert {name.split(".")[0] for name in frozen} == {"tower", "text"}
    assert set(model.learnable()) == learning
    assert "prompts.context" in learning


def test_a_training_step_moves_only_what_learns(make_model, normal):
    model = make_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    output = model(normal(2, 3, 48, 48), model.text_features(["nut", "bolt"]))
    (output.score.sum() + (output.map * torch.linspace(0, 1, 48)).sum()).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != name.startswith(("prompts.", "head.")), name


def test_untrained_model_is_plain_clip_vv(make_model, normal):
    model = make_model(untrained=True)
    pixels = normal(2, 3, 48, 48)
    text = model.text_features(["hazelnut"])
    output = model(pixels, text)
    features = model.tower(pixels)
    shares = []
    for stage in features.patches:
        cosine = F.normalize(stage, dim=-1) @ text[0].T
        shares.append(torch.softmax(cosine / 0.07, dim=-1)[..., 1])
    torch.testing.assert_close(output.cells.flatten(1), torch.stack(shares).mean(0), rtol=1e-4, atol=1e-5)
    share = torch.softmax(F.normalize(features.global_token, dim=-1) @ text[0].T / 0.07, dim=-1)[:, 1]
    torch.testing.assert_close(output.score, (share + output.map.amax(dim=(1, 2))) / 2, rtol=1e-4, atol=1e-5)


def test_handcrafted_bypasses_every_learned_module_and_reads_the_last_stage(make_model, normal):
    model = make_model(prompts="handcrafted")
    assert model.prompts is None and model.head.adapter is None and len(model.head.stages) == 0
    assert model.learnable() == {}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    pixels = normal(1, 3, 48, 48)
    text = model.text_features(["hazelnut"])
    last = abnormal_share(model.tower(pixels).patches[3], text)
    torch.testing.assert_close(model(pixels, text).cells.flatten(1), last)


@pytest.mark.parametrize("flag", ["vv", "bicmci", "conv_adapter"])
def test_each_flag_changes_the_answer_and_removes_its_part(make_model, normal, flag):
    whole, without = make_model(), make_model(**{flag: False})
    names = {name for name, _ in without.named_parameters()}
    assert (without.tower.final is None) == (flag == "vv")
    assert any(name.startswith("head.stages.") for name in names) == (flag != "bicmci")
    assert any(name.startswith("head.adapter.") for name in names) == (flag != "conv_adapter")
    pixels = normal(1, 3, 48, 48)
    text = whole.text_features(["nut"]).detach()
    with torch.no_grad():
        assert (whole(pixels, text).score - without(pixels, text).score).abs().max() > 1e-5


def test_one_class_for_all_images_is_the_class_repeated(make_model, normal):
    model = make_model()
    pixels = normal(3, 3, 48, 48)
    text = model.text_features(["nut"]).detach()
    shared, repeated = model(pixels, text), model(pixels, text.repeat(3, 1, 1))
    for name in ("cells", "map", "score"):
        torch.testing.assert_close(getattr(shared, name), getattr(repeated, name), rtol=1e-5, atol=1e-5)


def test_size_that_is_not_square(make_model, normal):
    output = make_model(image_size=(32, 64))(normal(1, 3, 32, 64), F.normalize(normal(1, 2, 64), dim=-1))
    assert output.cells.shape == (1, 4, 8) and output.map.shape == (1, 32, 64)


def test_nano_at_its_native_size_and_the_prompt_length(normal):
    config = ModelConfig("nano", (256, 256), prompt_length=5)
    loaded = build_model(config, "none")
    with torch.no_grad():
        output = loaded.model(normal(1, 3, 256, 256), loaded.model.text_features(["object"]))
    assert output.cells.shape == (1, 16, 16) and output.map.shape == (1, 256, 256)
    assert loaded.model.prompts.context.shape == (2, 5, 192)
    assert not loaded.model.training


def test_refuses_an_unknown_tower(make_clip):
    with pytest.raises(CheckpointError, match="image tower"):
        KAnoCLIP(make_clip(pool_type="avg"), ModelConfig("random-tiny", (48, 48)))
