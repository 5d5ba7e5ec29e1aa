"""The two layers whose numerics decide what the exported graph looks like: layer norm and attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32 whatever the stream's dtype, and returned in the stream's dtype.

    In an fp16 graph it is one operator, whose `stash_type` makes it compute in float32. In a bf16 graph, whose numbers
    are too coarse for its parameters, it is an island of float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of x [..., C]."""
        if torch.compiler.is_exporting() and x.dtype == torch.float16:
            # ONNX's operator computes in float32 by itself (stash_type): casts around it would only be copies.
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over heads.

    While a graph is being exported, it is written out as `MatMul(q * scale, k^T) -> Softmax -> MatMul`: the pattern
    that TensorRT fuses, where torch's own decomposition splits the scale between q and k. In training on a CPU it is
    written out too: the backward passes of torch's fused forms take two to four times as long there.

    Args:
        q: [B, heads, Q, D].
        k: [B, heads, K, D].
        v: [B, heads, K, D].

    Returns:
        [B, heads, Q, D].
    """
    if torch.compiler.is_exporting():
        return _written_out(q, k, v)
    if q.device.type == "cpu" and q.requires_grad and torch.is_grad_enabled():
        # Autocast would take the softmax to float32, and its result back.
        with torch.autocast("cpu", enabled=False):
            return _written_out(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), dim=-1)
    return weights @ v


def float32_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product of float32 tensors in float32, autocast or not: [..., N, K] x [..., K, M] -> [..., N, M]."""
    # A graph has no autocast, and the context would be written into it; `meta` tensors know no such context.
    if torch.compiler.is_exporting() or a.is_meta:
        return a @ b
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, heads * D] -> [B, heads, N, D]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, N, D] -> [B, N, heads * D]."""
    return x.transpose(1, 2).flatten(2)
