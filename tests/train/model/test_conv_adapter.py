"""The Conv-Adapter against loops over the cells."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kanoclip.train.model.conv_adapter import ConvAdapter

DIM, GRID = 16, (3, 5)


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return ConvAdapter(DIM, GRID)


def test_untrained_is_the_identity(untrained, normal):
    token = normal(2, DIM)
    assert torch.equal(untrained(token, normal(2, 15, DIM)), token)


def test_equals_loops_over_the_cells(untrained, shake, normal):
    adapter = shake(untrained, size=0.3)
    token, patches = normal(2, DIM), normal(2, 15, DIM)
    got = adapter(token, patches)
    kernel, bias = adapter.depthwise.weight[:, 0], adapter.depthwise.bias
    for image in range(2):
        cells = F.layer_norm(patches[image] + token[image], (DIM,), adapter.norm.weight, adapter.norm.bias)
        hidden = []
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                total = bias.clone()
                for y in (-1, 0, 1):
                    for x in (-1, 0, 1):
                        if 0 <= row + y < GRID[0] and 0 <= column + x < GRID[1]:
                            cell = cells[(row + y) * GRID[1] + column + x]
                            total = total + kernel[:, y + 1, x + 1] * cell
                hidden.append(torch.relu(adapter.pointwise.weight @ total + adapter.pointwise.bias))
        mean = torch.stack(hidden).mean(0)
        expected = token[image] + adapter.up.weight @ mean + adapter.up.bias
        torch.testing.assert_close(got[image], expected, rtol=1e-5, atol=1e-5)


def test_a_quarter_wide_and_depthwise(untrained):
    assert untrained.depthwise.groups == DIM and untrained.depthwise.kernel_size == (3, 3)
    assert untrained.pointwise.weight.shape == (DIM // 4, DIM)
    assert untrained.up.weight.shape == (DIM, DIM // 4)


def test_training_can_leave_the_identity(untrained, normal):
    (untrained(normal(2, DIM), normal(2, 15, DIM)) * normal(2, DIM)).sum().backward()
    assert untrained.up.weight.grad.abs().max() > 0
    assert untrained.up.bias.grad.abs().max() > 0
