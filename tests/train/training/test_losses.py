import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kanoclip.train.training.losses import dice, focal, global_bce, kd_anchored, kd_printed, local_loss


def unit(values):
    values = np.asarray(values, dtype=np.float64)
    return values / np.linalg.norm(values)


def slow_kd(knowledge, normal, abnormal, margin):
    """Eq. 2, letter by letter."""
    to_abnormal = math.dist(unit(knowledge), unit(abnormal))
    to_normal = math.dist(unit(knowledge), unit(normal))
    return max(0.0, to_abnormal - to_normal + margin)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_kd_is_eq_2_whatever_the_norms(normal, margin):
    text, knowledge = normal(5, 2, 7) * 3, normal(5, 7) * 0.1
    expected = [slow_kd(k, t[0], t[1], margin) for k, t in zip(knowledge.numpy(), text.numpy(), strict=True)]
    assert any(value > 0 for value in expected)
    torch.testing.assert_close(kd_printed(text, knowledge, margin), torch.tensor(expected, dtype=torch.float32))


def test_kd_pulls_the_abnormal_and_pushes_the_normal(normal):
    knowledge = normal(1, 7)
    text = torch.stack([knowledge + 0.1 * normal(1, 7), normal(1, 7)], dim=1).requires_grad_()
    kd_printed(text, knowledge).sum().backward()
    stepped = (text - 0.1 * text.grad).detach()
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(stepped[:, 1], knowledge) > cosine(text[:, 1], knowledge)
    assert cosine(stepped[:, 0], knowledge) < cosine(text[:, 0], knowledge)


def test_kd_that_is_met_costs_nothing(normal):
    knowledge = normal(1, 7)
    text = torch.stack([-knowledge, knowledge], dim=1).requires_grad_()
    loss = kd_printed(text, knowledge).sum()
    loss.backward()
    assert loss == 0
    assert torch.equal(text.grad, torch.zeros_like(text))


def slow_anchored(knowledge, anchor, normal, abnormal, margin):
    """Eq. 2 after the midpoint of knowledge and anchor has been taken from everything."""
    middle = (unit(knowledge) + unit(anchor)) / 2
    left = [unit(unit(value) - middle) for value in (knowledge, normal, abnormal)]
    return slow_kd(*left, margin)


@pytest.mark.parametrize("margin", [0.0, 1.75])
def test_anchored_kd_is_eq_2_without_the_shared_part_whatever_the_norms(normal, margin):
    text, knowledge, anchor = normal(6, 2, 7) * 3, normal(6, 7) * 0.1, normal(6, 7) * 5
    rows = zip(knowledge.numpy(), anchor.numpy(), text.numpy(), strict=True)
    expected = [slow_anchored(k, a, t[0], t[1], margin) for k, a, t in rows]
    assert any(value > 0 for value in expected)
    hinge = kd_anchored(text, knowledge, anchor, margin)
    torch.testing.assert_close(hinge, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-5)


def alike(normal, classes=4, width=16, apart=0.2):
    """Features as texts have them that begin alike: one direction, and a little of each one's own."""
    shared = normal(1, width)
    knowledge, anchor = shared + apart * normal(classes, width), shared + apart * normal(classes, width)
    return knowledge, anchor, shared


def test_a_shared_beginning_kills_the_printed_form_and_not_the_anchored_one(normal):
    """Abnormal prompts that begin as the descriptions do are near to them, whatever else they say."""
    knowledge, anchor, shared = alike(normal)
    text = torch.stack([normal(4, 16), shared + 0.2 * normal(4, 16)], dim=1).requires_grad_()
    dead = kd_printed(text, knowledge)
    assert torch.equal(dead, torch.zeros(4))
    alive = kd_anchored(text, knowledge, anchor, 1.75)
    assert (alive > 0).all()
    gradient = torch.autograd.grad(alive.sum(), text)[0]
    assert (gradient.norm(dim=-1) > 1e-2).all(), "every prompt of every class is moved"


def test_anchored_kd_brings_each_state_nearer_to_its_own_descriptions(normal):
    knowledge, anchor, shared = alike(normal)
    text = (shared[:, None] + 0.3 * normal(4, 2, 16)).requires_grad_()
    axis = torch.nn.functional.normalize(knowledge, dim=-1) - torch.nn.functional.normalize(anchor, dim=-1)

    def along():
        return (torch.nn.functional.normalize(text.detach(), dim=-1) * axis[:, None]).sum(-1)

    before, start = along(), kd_anchored(text, knowledge, anchor, 1.75)
    optimizer = torch.optim.SGD([text], lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        kd_anchored(text, knowledge, anchor, 1.75).sum().backward()
        optimizer.step()
    assert (kd_anchored(text, knowledge, anchor, 1.75) < start).all()
    assert (along()[:, 1] > before[:, 1]).all() and (along()[:, 0] < before[:, 0]).all()


def test_prompts_that_say_what_the_descriptions_say_meet_every_margin_but_the_last(normal):
    knowledge, anchor, _ = alike(normal)
    right, wrong = torch.stack([anchor, knowledge], dim=1), torch.stack([knowledge, anchor], dim=1)
    assert torch.equal(kd_anchored(right, knowledge, anchor, 1.99), torch.zeros(4))
    torch.testing.assert_close(kd_anchored(wrong, knowledge, anchor, 1.75), torch.full((4,), 3.75))


features = st.lists(st.floats(-1, 1, width=32), min_size=20, max_size=20)


@settings(max_examples=100, deadline=None)
@given(features, st.floats(0.05, 2))
def test_one_small_step_never_raises_either_hinge(values, margin):
    """The gradient is the loss's own: following it a little lowers the loss, wherever there is one."""
    tensor = torch.tensor(values).reshape(4, 5)
    states = torch.nn.functional.normalize(tensor[None, :2], dim=-1)
    # A distance has a kink where it is 0, and no direction is a direction of nothing.
    assume(tensor.norm(dim=-1).min() > 0.05)
    assume((states[0, 1] - torch.nn.functional.normalize(tensor[2], dim=-1)).norm() > 0.05)
    for hinge in (
        lambda text: kd_printed(text, tensor[2:3], margin),
        lambda text: kd_anchored(text, tensor[2:3], tensor[3:], margin),
    ):
        text = states.clone().requires_grad_()
        before = hinge(text)
        (gradient,) = torch.autograd.grad(before.sum(), text)
        assert 0 <= before <= 2 + margin + 1e-5 and gradient.isfinite().all()
        after = hinge(text.detach() - 1e-4 * gradient / gradient.norm().clamp_min(1.0))
        assert after <= before + 1e-5


@pytest.mark.parametrize("margin", [0.0, 1.75])
@pytest.mark.parametrize("case", ["same", "opposite", "no knowledge", "no anchor", "nothing", "no text", "middle"])
def test_degenerate_features_have_finite_hinges_and_gradients(normal, case, margin):
    knowledge, anchor, text = normal(1, 7), normal(1, 7), normal(1, 2, 7)
    zero = torch.zeros(1, 7)
    middle = torch.nn.functional.normalize(knowledge, dim=-1) + torch.nn.functional.normalize(anchor, dim=-1)
    knowledge, anchor, text = {
        "same": (knowledge, knowledge * 2, text),
        "opposite": (knowledge, -knowledge, text),
        "no knowledge": (zero, anchor, text),
        "no anchor": (knowledge, zero, text),
        "nothing": (zero, zero, text),
        "no text": (knowledge, anchor, torch.zeros(1, 2, 7)),
        "middle": (knowledge, anchor, middle[:, None].repeat(1, 2, 1)),
    }[case]
    text = text.clone().requires_grad_()
    hinge = kd_anchored(text, knowledge, anchor, margin)
    hinge.sum().backward()
    assert hinge.isfinite().all() and text.grad.isfinite().all()
    if case in ("same", "nothing"):
        assert hinge == 0 and not text.grad.any(), "there is nothing to tell the states apart by"


def test_focal_by_hand():
    maps = torch.tensor([[[0.9, 0.2], [0.5, 0.7]]])
    masks = torch.tensor([[[1, 0], [1, 0]]], dtype=torch.uint8)
    right = [0.9, 0.8, 0.5, 0.3]
    expected = np.mean([-((1 - p) ** 2) * math.log(p) for p in right])
    torch.testing.assert_close(focal(maps, masks), torch.tensor([expected], dtype=torch.float32))


def test_dice_by_hand():
    maps = torch.tensor([[[0.9, 0.2], [0.5, 0.7]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = torch.tensor([[[1, 0], [1, 0]], [[0, 0], [0, 0]]], dtype=torch.uint8)
    expected = [1 - (2 * 1.4 + 1) / (2.3 + 2 + 1), 0.0]
    torch.testing.assert_close(dice(maps, masks), torch.tensor(expected))


def test_local_is_the_sum_of_eq_15_and_passes_unknown_masks_over():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 6, 5, generator=generator)
    masks = (torch.rand(3, 6, 5, generator=generator) > 0.7).to(torch.uint8)
    each = focal(maps, masks) + dice(1 - maps, 1 - masks) + dice(maps, masks)
    everything = local_loss(maps, masks, torch.tensor([True, True, True]))
    torch.testing.assert_close(everything, each.mean())
    some = local_loss(maps.requires_grad_(), masks, torch.tensor([True, False, True]))
    torch.testing.assert_close(some, (each[0] + each[2]) / 3)
    some.backward()
    assert torch.equal(maps.grad[1], torch.zeros(6, 5))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_perfectly_wrong_answers_have_finite_losses_and_gradients(value):
    """A map of exactly 0 or 1 is what half precision gives where a sigmoid is sure."""
    maps = torch.full((2, 4, 4), value, requires_grad=True)
    masks = torch.full((2, 4, 4), 1 - int(value), dtype=torch.uint8)
    scores = torch.full((2,), value, requires_grad=True)
    loss = local_loss(maps, masks, torch.ones(2, dtype=torch.bool)) + global_bce(scores, torch.full((2,), 1 - value))
    loss.backward()
    assert 10 < loss < 60
    assert maps.grad.isfinite().all() and scores.grad.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=16, max_size=16), st.lists(st.booleans(), min_size=16, max_size=16))
def test_losses_are_finite_and_least_where_map_and_mask_agree(values, mask):
    masks = torch.tensor(mask).reshape(1, 4, 4).to(torch.uint8)
    known = torch.tensor([True])
    loss = local_loss(torch.tensor(values).reshape(1, 4, 4), masks, known)
    best = local_loss(masks.float(), masks, known)
    assert math.isfinite(loss) and 0 <= best < 1e-4
    assert loss >= best - 1e-6


def test_global_is_binary_cross_entropy():
    scores, labels = torch.tensor([0.9, 0.3, 0.6]), torch.tensor([1.0, 0.0, 1.0])
    expected = -(math.log(0.9) + math.log(0.7) + math.log(0.6)) / 3
    assert global_bce(scores, labels) == pytest.approx(expected)
    assert global_bce(torch.tensor([float("nan")]), torch.tensor([1.0])).isnan(), "the trainer says what to do"


def test_halves_of_a_batch_average_to_the_whole(normal):
    """What several processes rely on."""
    maps, masks = torch.rand(4, 5, 5), (torch.rand(4, 5, 5) > 0.5).to(torch.uint8)
    known = torch.tensor([True, False, True, True])
    scores, labels = torch.rand(4), torch.tensor([1.0, 0.0, 0.0, 1.0])
    for loss in (lambda s: local_loss(maps[s], masks[s], known[s]), lambda s: global_bce(scores[s], labels[s])):
        whole = loss(slice(0, 4))
        torch.testing.assert_close((loss(slice(0, 2)) + loss(slice(2, 4))) / 2, whole)
