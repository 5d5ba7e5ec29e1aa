"""Map and score (eq. 9-12) against numpy, OpenCV and F.interpolate."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kanoclip.train.model.head import TEMPERATURE, USUAL_DISTANCE, Head, Output, abnormal_share
from kanoclip.train.model.towers.clip_vv import ImageFeatures

DIM = 64


def make_head(grid=(6, 6), size=(48, 48), **options) -> Head:
    torch.manual_seed(0)
    return Head(DIM, grid, size, **options)


@pytest.fixture
def picture(normal):
    """Features of three images, of very different norms, near enough to the text for maps between 0 and 1."""

    def draw(cells: int = 36, batch: int = 3) -> ImageFeatures:
        return ImageFeatures(tuple(normal(batch, cells, DIM) * 10**i for i in range(-1, 3)), normal(batch, DIM) * 5)

    return draw


@pytest.fixture
def text(normal):
    return F.normalize(normal(3, 2, DIM), dim=-1)


def states_softmax(tokens: np.ndarray, text: np.ndarray) -> np.ndarray:
    """softmax over {normal, abnormal} of cosine / 0.07: [P, C] and [2, C] -> [P, 2]."""
    cosine = np.array([[t @ s / np.linalg.norm(t) / np.linalg.norm(s) for s in text] for t in tokens])
    exponential = np.exp(cosine / 0.07)
    return exponential / exponential.sum(1, keepdims=True)


def eq_10(normal_map: np.ndarray, abnormal_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """G_sigma(M_a + 1 - M_n) / 2 as printed, upsampled first."""
    combined = torch.from_numpy(abnormal_map + 1 - normal_map)[None, None]
    full = F.interpolate(combined, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    sigma = 4 * size[0] / 336
    kernel = 2 * math.ceil(4 * sigma) + 1
    return cv2.GaussianBlur(full, (kernel, kernel), sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT) / 2


def expected_output(stages, global_token, text, grid, size) -> tuple[np.ndarray, np.ndarray, float]:
    """cells, map and score of one image from its refined stages [(patches, text), ...] and adapted global token."""
    shares = [states_softmax(p.double().numpy(), t.double().numpy()) for p, t in stages]
    both = np.mean(shares, axis=0).reshape(*grid, 2)
    anomaly_map = eq_10(both[..., 0], both[..., 1], size)
    share = states_softmax(global_token.double().numpy()[None], text.double().numpy())[0, 1]
    return both[..., 1], anomaly_map, (share + anomaly_map.max()) / 2


def check(output: Output, index: int, expected) -> None:
    cells, anomaly_map, score = expected
    np.testing.assert_allclose(output.cells[index].detach().numpy(), cells, atol=2e-5)
    np.testing.assert_allclose(output.map[index].detach().numpy(), anomaly_map, atol=2e-5)
    assert output.score[index].item() == pytest.approx(score, abs=2e-5)


@pytest.mark.parametrize(("grid", "size"), [((6, 6), (48, 48)), ((4, 7), (64, 112)), ((24, 24), (336, 336))])
def test_untrained_is_plain_cosine_similarity(picture, text, grid, size):
    head = make_head(grid, size)
    image = picture(grid[0] * grid[1])
    output = head(image, text, head.text_states(text))
    assert output.cells.shape == (3, *grid) and output.map.shape == (3, *size) and output.score.shape == (3,)
    for index in range(3):
        stages = [(stage[index], text[index]) for stage in image.patches]
        check(output, index, expected_output(stages, image.global_token[index], text[index], grid, size))


def test_trained_head_reads_refined_tokens_and_scores_with_baked_text(picture, text, shake):
    head = shake(make_head(), size=0.3)
    image = picture()
    output = head(image, text, head.text_states(text))
    plain = make_head()
    untrained = plain(image, text, plain.text_states(text))
    assert (output.cells - untrained.cells).abs().max() > 1e-2
    assert (output.score - untrained.score).abs().max() > 1e-3
    with torch.no_grad():
        unit = [F.normalize(stage, dim=-1) for stage in image.patches]
        refined = [stage(patches, stage.text_state(text)) for stage, patches in zip(head.stages, unit, strict=True)]
        adapted = head.adapter(F.normalize(image.global_token, dim=-1), unit[3])
    for index in range(3):
        stages = [(patches[index], words[index]) for patches, words in refined]
        check(output, index, expected_output(stages, adapted[index], text[index], (6, 6), (48, 48)))


def test_everything_is_between_zero_and_one(text):
    """Even where cosines are +-1 and the softmax is saturated."""
    head = make_head()
    for sign in (1.0, -1.0):
        direction = sign * (text[:1, 1] - text[:1, 0])
        image = ImageFeatures(tuple(direction[:, None].expand(1, 36, DIM) for _ in range(4)), direction)
        output = head(image, text[:1], head.text_states(text[:1]))
        for value in (output.cells, output.map, output.score):
            assert value.min() >= 0 and value.max() <= 1 + 1e-6
        assert output.score.item() == pytest.approx(1 if sign > 0 else 0, abs=1e-3)


def test_state_zero_is_normal_and_state_one_abnormal(text):
    tokens = torch.stack([text[0, 0], text[0, 1]])[None]
    share = abnormal_share(tokens, text[:1])[0]
    assert share[0] < 0.01 and share[1] > 0.99


def test_share_is_of_cosines_whatever_the_norms(normal, text):
    tokens = normal(3, 5, DIM)
    expected = abnormal_share(tokens, text)
    for index in range(3):
        by_hand = states_softmax(tokens[index].double().numpy(), text[index].double().numpy())[:, 1]
        np.testing.assert_allclose(expected[index].numpy(), by_hand, atol=1e-6)
    torch.testing.assert_close(abnormal_share(tokens * 1e-3, text * 40), expected, rtol=1e-5, atol=1e-6)
    assert abnormal_share(tokens.to(torch.bfloat16), text.to(torch.bfloat16)).dtype == torch.float32


def test_last_stage_only(picture, text):
    head = make_head(bicmci=False, conv_adapter=False, last_stage_only=True)
    image = picture()
    output = head(image, text, ())
    for index in range(3):
        stages = [(image.patches[3][index], text[index])]
        check(output, index, expected_output(stages, image.global_token[index], text[index], (6, 6), (48, 48)))


def test_last_stage_only_with_bicmci_has_one_stage(picture, text, shake):
    head = shake(make_head(last_stage_only=True), size=0.3)
    assert len(head.stages) == 1
    image = picture()
    got = head(image, text, head.text_states(text)).cells
    patches, words = head.stages[0](F.normalize(image.patches[3], dim=-1), head.stages[0].text_state(text))
    torch.testing.assert_close(got, abnormal_share(patches, words).view(3, 6, 6))


@pytest.mark.parametrize("bicmci", [True, False])
@pytest.mark.parametrize("conv_adapter", [True, False])
def test_each_flag_removes_what_it_says(picture, text, shake, bicmci, conv_adapter):
    head = shake(make_head(bicmci=bicmci, conv_adapter=conv_adapter), size=0.3)
    plain = make_head()
    image = picture()
    output = head(image, text, head.text_states(text))
    untrained = plain(image, text, plain.text_states(text))
    names = {name.split(".")[0] for name, _ in head.named_parameters()}
    assert names == {name for name, kept in (("stages", bicmci), ("adapter", conv_adapter)) if kept}
    assert len(head.text_states(text)) == (4 if bicmci else 0)
    assert torch.equal(output.cells, untrained.cells) != bicmci
    share = 2 * output.score - output.map.amax(dim=(1, 2))
    untrained_share = 2 * untrained.score - untrained.map.amax(dim=(1, 2))
    assert torch.allclose(share, untrained_share, atol=1e-6) != conv_adapter


def test_batch_of_different_classes_is_single_runs(picture, text, shake):
    head = shake(make_head(), size=0.3)
    image = picture()
    together = head(image, text, head.text_states(text))
    for index in range(3):
        one = slice(index, index + 1)
        alone = head(
            ImageFeatures(tuple(stage[one] for stage in image.patches), image.global_token[one]),
            text[one],
            head.text_states(text[one]),
        )
        for name in ("cells", "map", "score"):
            torch.testing.assert_close(getattr(together, name)[one], getattr(alone, name), rtol=1e-5, atol=1e-5)


def test_one_text_for_the_whole_batch(picture, text, shake):
    head = shake(make_head(), size=0.3)
    image, one = picture(), text[:1]
    shared = head(image, one, head.text_states(one))
    repeated = one.repeat(3, 1, 1)
    copied = head(image, repeated, head.text_states(repeated))
    for name in ("cells", "map", "score"):
        torch.testing.assert_close(getattr(shared, name), getattr(copied, name), rtol=1e-5, atol=1e-5)


def test_every_learnable_tensor_gets_a_gradient_once_it_has_left_the_identity(picture, text, shake):
    head = shake(make_head(), size=0.3)
    output = head(picture(), text, head.text_states(text))
    (output.map * torch.linspace(0, 1, 48)).sum().add(output.score.sum()).backward()
    without = [name for name, p in head.named_parameters() if p.grad is None or not torch.count_nonzero(p.grad)]
    assert without == []


def test_self_similarity_moves_the_logits_of_the_map_and_nothing_else(normal):
    image = ImageFeatures(
        tuple(normal(2, 36, DIM) for _ in range(4)), normal(2, DIM), distance=USUAL_DISTANCE + normal(2, 36)
    )
    text = torch.nn.functional.normalize(normal(1, 2, DIM), dim=-1)
    plain, counted = (Head(DIM, (6, 6), (48, 48), bicmci=False, self_similarity=weight) for weight in (0.0, 0.5))
    before, after = plain(image, text, ()), counted(image, text, ())
    stages = torch.stack([torch.logit(abnormal_share(stage, text)) for stage in image.patches])
    wanted = torch.sigmoid(stages + 0.5 * (image.distance - USUAL_DISTANCE)).mean(0).view(2, 6, 6)
    torch.testing.assert_close(after.cells, wanted, rtol=1e-4, atol=1e-5)
    shares = [2 * one.score - one.map.amax((1, 2)) for one in (before, after)]
    torch.testing.assert_close(*shares, rtol=1e-4, atol=1e-5)
    without = ImageFeatures(image.patches, image.global_token)
    assert torch.equal(counted(without, text, ()).map, before.map), "a plain ViT has no such distance"


def test_a_warmer_global_share_leaves_the_score_to_the_map(normal):
    image = ImageFeatures(tuple(normal(4, 36, DIM) for _ in range(4)), normal(4, DIM))
    text = torch.nn.functional.normalize(normal(1, 2, DIM), dim=-1)
    cold, warm = (
        Head(DIM, (6, 6), (48, 48), global_temperature=tau)(image, text, Head(DIM, (6, 6), (48, 48)).text_states(text))
        for tau in (0.07, 0.7)
    )
    spread = [float((2 * one.score - one.map.amax((1, 2))).std()) for one in (cold, warm)]
    assert spread[1] < 0.3 * spread[0] and torch.equal(cold.map, warm.map)


def test_the_share_is_siglips_two_sigmoids_normalised_where_both_are_small():
    """SigLIP's logits are sigmoids with a bias; in the pair's share it cancels, as long as neither is near 1."""
    cosines = torch.linspace(-0.3, 0.3, 61)
    normal, abnormal = torch.meshgrid(cosines, cosines, indexing="ij")
    scale, bias = 1 / TEMPERATURE, -10.0  # the bias that SigLIP begins with; trained ones are lower
    first, second = (torch.sigmoid(scale * one + bias) for one in (normal, abnormal))
    share = torch.sigmoid(scale * (abnormal - normal))
    assert (second / (first + second) - share).abs().max() < 1e-3
