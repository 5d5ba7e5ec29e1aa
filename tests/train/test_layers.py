from __future__ import annotations

import pytest
import torch

from kanoclip.train.model.layers import attention, attention_over_two


@pytest.mark.parametrize("batch", [1, 3])
def test_attention_over_two_keys_is_attention(normal, batch):
    """Values and gradients, with one text for all pictures or one for each."""
    given = [normal(3, 4, 10, 8), normal(batch, 4, 2, 8) * 3, normal(batch, 4, 2, 8)]
    upstream = normal(3, 4, 10, 8)
    got, wanted = [], []
    for found, way in ((got, attention_over_two), (wanted, attention)):
        q, k, v = (tensor.clone().requires_grad_() for tensor in given)
        output = way(q, k.expand(3, -1, -1, -1), v.expand(3, -1, -1, -1)) if way is attention else way(q, k, v)
        found += [output, *torch.autograd.grad((output * upstream).sum(), [q, k, v])]
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_attention_over_two_keys_far_apart_does_not_overflow_in_half_precision():
    q = torch.full((1, 1, 1, 64), 60.0).half()
    k = torch.stack([-q, q], dim=2)[:, :, :, 0]
    v = torch.tensor([[[[1.0], [2.0]]]]).half().expand(-1, -1, -1, 64)
    assert torch.equal(attention_over_two(q, k, v), torch.full((1, 1, 1, 64), 2.0).half())
