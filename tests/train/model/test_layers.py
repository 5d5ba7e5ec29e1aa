from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kanoclip.train.model import layers
from kanoclip.train.model.layers import attention, float32_matmul, merge_heads, split_heads


@pytest.mark.parametrize("same", [False, True], ids=["q k v", "v v v"])
@pytest.mark.parametrize("rows", [17, 2])
def test_attention_in_training_on_a_cpu_has_the_fused_forms_values_and_gradients(normal, monkeypatch, same, rows):
    k, v = normal(2, 3, 17, 8), normal(2, 3, 17, 8)
    q, upstream = normal(2, 3, rows, 8), normal(2, 3, 17 if same else rows, 8)
    written = []
    monkeypatch.setattr(layers, "_written_out", lambda *x, keep=layers._written_out: written.append(1) or keep(*x))

    def run(function):
        leaves = [x.clone().requires_grad_(True) for x in ((v,) if same else (q, k, v))]
        out = function(*(leaves * 3 if same else leaves))
        (out * upstream).sum().backward()
        return out, [leaf.grad for leaf in leaves]

    (got, gradients), (want, expected) = run(attention), run(F.scaled_dot_product_attention)
    assert written == [1], "written out while training"
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, expected, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_attention_without_gradients_is_torchs_own(normal, monkeypatch):
    q, k, v = normal(1, 2, 5, 4), normal(1, 2, 5, 4), normal(1, 2, 5, 4)
    monkeypatch.setattr(layers, "_written_out", None)
    assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))
    with torch.no_grad():
        q.requires_grad_(True)
        assert torch.equal(attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_attention_under_autocast_keeps_its_dtype(normal):
    q = normal(1, 2, 9, 8).bfloat16().requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, q, q)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out.float(), F.scaled_dot_product_attention(*[q.detach().float()] * 3), rtol=0.05, atol=0.05
    )


def test_a_float32_product_stays_float32_under_autocast(normal):
    a, b = normal(3, 7, 5), normal(3, 5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        got = float32_matmul(a, b)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, a @ b, rtol=0, atol=0)
    assert float32_matmul(a.to("meta"), b.to("meta")).shape == (3, 7, 2)


def test_heads_are_split_and_merged(normal):
    x = normal(2, 5, 12)
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 4) and torch.equal(heads[1, 2, 4], x[1, 4, 8:12])
    assert torch.equal(merge_heads(heads), x)
