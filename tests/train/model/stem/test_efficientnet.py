"""The trunk against timm's own EfficientNet-Lite, through the reader of the published files."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d

from kanoclip.train.model.stem.efficientnet import Trunk, Variant
from kanoclip.train.nano.stem_weights import load_trunk


def published(variant: Variant) -> torch.nn.Module:
    """timm's network with random weights and statistics, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = timm.create_model(f"tf_efficientnet_{variant.name.lower()}").eval()
        for module in model.modules():
            if isinstance(module, BatchNormAct2d):
                for value, low, high in (
                    (module.weight, 0.8, 1.8),
                    (module.bias, -0.3, 0.3),
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 1.5),
                ):
                    torch.nn.init.uniform_(value, low, high)
    return model


@pytest.fixture(scope="module", params=[Variant.LITE0, pytest.param(Variant.LITE2, marks=pytest.mark.nightly)])
def pair(request, tmp_path_factory):
    """timm's network, and ours as it is read from a file of the published kind."""
    model = published(request.param)
    path = tmp_path_factory.mktemp("published") / "w.pth"
    torch.save(model.state_dict(), path)
    return model, load_trunk(request.param, path)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (96, 32)])
def test_every_stage_equals_timms_with_its_padding(pair, normal, size):
    """An asymmetric pad put on the wrong side moves each of five strided convolutions by a pixel."""
    theirs, ours = (network.double() for network in pair)  # random weights let roundings grow a thousandfold
    pixels = normal(2, 3, *size).double()
    x, wanted = theirs.bn1(theirs.conv_stem(pixels)), []
    for group in theirs.blocks:
        x = group(x)
        wanted.append(x)
    got = ours(pixels)
    assert len(got) == 5
    for stage, want in zip(got, wanted[1:6], strict=True):
        assert stage.shape == want.shape and want.std() > 1e-3
        torch.testing.assert_close(stage, want, rtol=0, atol=3e-4 * float(want.abs().max()))


@pytest.mark.parametrize("variant", Variant)
def test_stages_have_their_channels_and_strides(variant):
    trunk = Trunk(variant).to("meta")
    stages = trunk(torch.empty(1, 3, 64, 128, device="meta"))
    assert [tuple(stage.shape[1:]) for stage in stages] == [
        (channels, 64 // stride, 128 // stride)
        for channels, stride in zip(variant.channels, (4, 8, 16, 16, 32), strict=True)
    ]
    assert trunk.channels == variant.channels


def test_channels_and_blocks_are_the_published_ones():
    assert Variant.LITE0.channels == Variant.LITE1.channels == (24, 40, 80, 112, 192)
    assert Variant.LITE2.channels == (24, 48, 88, 120, 208)
    counts = {variant: [len(group) for group in Trunk(variant).to("meta").groups] for variant in Variant}
    assert counts[Variant.LITE0] == [1, 2, 2, 3, 3, 4]
    assert counts[Variant.LITE1] == [1, 3, 3, 4, 4, 5]
    assert counts[Variant.LITE2] == [1, 3, 3, 4, 4, 5]


def test_relu6_cuts_at_six_and_not_where_a_block_ends():
    trunk = Trunk(Variant.LITE0)
    first = trunk.first
    with torch.no_grad():
        first.conv.weight.zero_()
        first.conv.bias.copy_(torch.linspace(-5, 15, 32))
    out = first(torch.zeros(1, 3, 4, 4))
    assert out.min() == 0 and out.max() == 6 and out.unique().numel() > 5
    for group in trunk.groups:
        for block in group:
            *inner, last = block.layers
            assert all(layer.relu for layer in inner) and not last.relu
    assert sum(layer.relu for layer in trunk.convolutions()) == 1 + sum(
        len(block.layers) - 1 for group in trunk.groups for block in group
    )


def test_a_block_adds_its_input_only_where_the_shapes_agree(normal):
    group = Trunk(Variant.LITE0).groups[1]
    assert [block.adds for block in group] == [False, True]
    x = normal(1, 24, 6, 6)
    torch.testing.assert_close(group[1](x), x + group[1].layers(x))
    assert not torch.equal(group[1](x), group[1].layers(x))


def test_padding_is_same_for_every_kernel_and_stride(normal):
    for layer in Trunk(Variant.LITE0).convolutions():
        kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
        total = max(kernel - stride, 0)  # TensorFlow's rule for a side that the stride divides
        own = sum(layer.pad[:2]) if layer.pads_apart else 2 * layer.conv.padding[0]
        assert own == total, (kernel, stride)
        if layer.pads_apart:
            assert layer.pad[0] == total // 2 < layer.pad[1]
    wide = F.pad(normal(1, 3, 8, 8), (0, 1, 0, 1))
    first = Trunk(Variant.LITE0).first
    torch.testing.assert_close(first(wide[..., :8, :8]), F.relu6(F.conv2d(wide, first.conv.weight, first.conv.bias, 2)))


def test_it_is_frozen():
    assert not any(parameter.requires_grad for parameter in Trunk(Variant.LITE0).parameters())
