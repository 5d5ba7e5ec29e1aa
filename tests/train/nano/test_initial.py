import open_clip
import pytest
import torch
import torch.nn.functional as F

from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.nano.initial import prepare
from kanoclip.train.nano.scene import Recipe, generate


@pytest.fixture(scope="module")
def tower():
    return prepared(0)


def prepared(seed):
    torch.manual_seed(0)
    visual = open_clip.CLIP(**get_backbone("random-tiny").architecture()).visual
    prepare(visual, seed)
    return visual


def spread(visual, seed):
    """Deviation of each filter's answer over pictures that did not set it."""
    side = visual.conv1.kernel_size[0]
    frames = torch.stack([torch.from_numpy(generate(Recipe(size=64), seed, index).image) for index in range(24)])
    return F.conv2d(to_pixels(frames), visual.conv1.weight, stride=side).transpose(0, 1).flatten(1).std(dim=1)


def test_all_filters_answer_about_as_strongly(tower):
    found = spread(tower, 99)
    assert found.min() > 0.3 and found.max() < 3
    torch.manual_seed(0)
    plain = spread(open_clip.CLIP(**get_backbone("random-tiny").architecture()).visual, 99)
    assert found.max() / found.min() < plain.max() / plain.min()


def test_filters_are_different_directions(tower):
    flat = F.normalize(tower.conv1.weight.detach().flatten(1), dim=1)
    assert torch.allclose(flat @ flat.T, torch.eye(len(flat)), atol=1e-4)


def test_tokens_look_at_tokens_like_themselves_and_take_what_they_share_away(tower):
    attention = tower.transformer.resblocks[0].attn
    width, each = attention.embed_dim, attention.embed_dim // attention.num_heads
    query, key, value = attention.in_proj_weight.detach().chunk(3)
    for head in range(attention.num_heads):
        rows = slice(head * each, (head + 1) * each)
        scores = query[rows].T @ key[rows]
        assert scores.trace() / width > 5 * (scores - scores.diag().diag()).mean().abs()
        assert scores.trace() > 0
    passed = attention.out_proj.weight.detach() @ value
    assert passed.trace() / width == pytest.approx(-0.4, abs=0.1)


def test_the_same_seed_gives_the_same_values(tower):
    again, other = prepared(0), prepared(1)
    for one, two in zip(tower.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(tower.conv1.weight, other.conv1.weight)
