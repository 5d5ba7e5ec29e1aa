"""A tower's blocks with their attention written out, and its pooling head."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.train.model.layers import LayerNorm, attention, merge_heads, split_heads
from kanoclip.train.model.towers.parts import BlockParts, PoolParts

GlobalToken = Literal["original", "local"]


class Block(nn.Module):
    """One transformer block, its attention written out from the tower's own weights.

    torch's nn.MultiheadAttention exports a fused operator that ONNX refuses, and hides V, which the local path needs.
    """

    cos: Tensor | None
    sin: Tensor | None

    def __init__(self, parts: BlockParts) -> None:
        """Shares the parameters of a tower's block; nothing is copied."""
        super().__init__()
        self.heads = parts.heads
        self.ln_1 = share_layer_norm(parts.ln_1)
        self.ln_2 = share_layer_norm(parts.ln_2)
        self.qkv_weight = as_parameter(parts.qkv_weight)
        self.qkv_bias = as_parameter(parts.qkv_bias)
        self.out = parts.out
        self.fc, self.activation, self.proj = parts.fc, parts.activation, parts.proj
        self.inner = share_layer_norm(parts.inner) if parts.inner is not None else None
        self.gate = parts.gate
        self.hidden_norm = share_layer_norm(parts.hidden_norm) if parts.hidden_norm is not None else None
        rotation = parts.rotation
        self.register_buffer("cos", rotation.cos if rotation is not None else None, persistent=False)
        self.register_buffer("sin", rotation.sin if rotation is not None else None, persistent=False)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised tokens [B, N, C] -> Q, K, V (eq. 7), each [B, heads, N, D]; Q and K carry rotary positions."""
        q, k, v = F.linear(x, self.qkv_weight, self.qkv_bias).chunk(3, dim=-1)
        q, k = self.rotate(split_heads(q, self.heads)), self.rotate(split_heads(k, self.heads))
        return q, k, split_heads(v, self.heads)

    def rotate(self, heads: Tensor) -> Tensor:
        """Rotary positions of the first N tokens put into Q or K, [B, heads, N, D]; unchanged in a tower without."""
        if self.cos is None or self.sin is None:
            return heads
        count = heads.shape[2]
        first, second = heads.chunk(2, dim=-1)
        swapped = torch.cat([second, first], dim=-1)
        return heads * self.cos[:count].to(heads.dtype) + swapped * self.sin[:count].to(heads.dtype)

    def project(self, heads: Tensor) -> Tensor:
        """Output projection (`Project_l` of eq. 8): [B, heads, N, D] -> [B, N, C]."""
        merged = merge_heads(heads)
        projected: Tensor = self.out(merged if self.inner is None else self.inner(merged))
        return projected

    def mlp(self, x: Tensor) -> Tensor:
        """Feed-forward part with its layer norm, without the residual: [B, N, C] -> [B, N, C]."""
        normed = self.ln_2(x)
        if self.gate is None:
            hidden = self.activation(self.fc(normed))
        else:
            hidden = self.activation(self.gate(normed)) * self.fc(normed)
        projected: Tensor = self.proj(hidden if self.hidden_norm is None else self.hidden_norm(hidden))
        return projected

    def residual(self, x: Tensor, attended: Tensor) -> Tensor:
        """The block's two residual steps, given its attention's heads: [B, N, C]."""
        x = x + self.project(attended)
        return x + self.mlp(x)


class FinalBlock(Block):
    """The last block of a tower whose class token is the global feature, beside a local-aware path.

    Nothing reads the original path's patch tokens after it, so that path goes on for the class token alone, or ends
    here. The projections are split once, at construction: a slice of weights inside the graph would be cut for every
    frame.
    """

    def __init__(self, parts: BlockParts, global_token: GlobalToken) -> None:
        """Shares the parameters of a tower's block."""
        super().__init__(parts)
        weight, bias = self.qkv_weight.detach(), self.qkv_bias.detach()
        del self.qkv_weight, self.qkv_bias
        width = weight.shape[1]
        self.v = linear(weight[2 * width :], bias[2 * width :])
        self.q = self.k = None
        if global_token == "original":
            self.q = linear(weight[:width], bias[:width])
            self.k = linear(weight[width : 2 * width], bias[width : 2 * width])

    def forward(self, original: Tensor) -> tuple[Tensor, Tensor | None]:
        """Original path's tokens [B, N, C] -> V [B, heads, N, D], and its class token [B, 1, C] if it goes on."""
        normed = self.ln_1(original)
        v = split_heads(self.v(normed), self.heads)
        if self.q is None or self.k is None:
            return v, None
        # One query row more than is needed: TensorRT-RTX does not fuse attention of a single row over 8 heads or more.
        q = self.rotate(split_heads(self.q(normed[:, :2]), self.heads))
        k = self.rotate(split_heads(self.k(normed), self.heads))
        return v, self.residual(original[:, :1], attention(q, k, v)[:, :, :1])


class AttentionPool(nn.Module):
    """A pooling head of attention (MAP), and what it makes of a token that it sees alone.

    The query is a constant, so no token is projected: the query times the key projection is one vector a head, which
    every token is compared with, and the mean of the tokens' values is the value of their mean. The result is the same
    but for rounding.
    """

    own_head: Tensor

    def __init__(self, parts: PoolParts) -> None:
        """Shares the head's feed-forward part; its query and its projections are split or joined once."""
        super().__init__()
        heads, width = parts.heads, parts.kv_weight.shape[1]
        weight, bias = parts.kv_weight.detach(), parts.kv_bias.detach()
        key, value = weight.chunk(2)
        query = parts.query.detach().reshape(heads, -1) * (width // heads) ** -0.5
        # The key's bias is left out: it adds the same to every token's logit, which softmax does not see.
        probes = torch.einsum("hd,hdc->ch", query, key.unflatten(0, (heads, -1)))
        self.probes = nn.Parameter(probes.contiguous())
        self.v = linear(value, bias[width:])
        self.out = parts.out
        out = parts.out.weight.detach()
        # Attention to one token is that token's V, whatever the query: two projections in a row, made one.
        self.alone = linear(out @ value, out @ bias[width:] + parts.out.bias.detach())
        self.norm = share_layer_norm(parts.norm)
        self.fc, self.activation, self.proj = parts.fc, parts.activation, parts.proj
        own_head = torch.eye(heads, device=value.device).repeat_interleave(width // heads, 1)
        self.register_buffer("own_head", own_head, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalised tokens [B, N, C] -> what the query reads of them all, [B, C]."""
        weights = torch.softmax((tokens @ self.probes).float(), dim=1).to(tokens.dtype)
        # Each head's mean token [B, heads, C], and of its value the head's own channels.
        seen = self.v(weights.transpose(1, 2) @ tokens) * self.own_head.to(tokens.dtype)
        return self._finish(self.out(seen.sum(1)))

    def each(self, tokens: Tensor) -> Tensor:
        """Normalised tokens [B, N, C] -> the head's answer to each of them alone, [B, N, C]."""
        return self._finish(self.alone(tokens))

    def _finish(self, x: Tensor) -> Tensor:
        projected: Tensor = self.proj(self.activation(self.fc(self.norm(x))))
        return x + projected


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer over given tensors, which are shared."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def share_layer_norm(source: nn.LayerNorm) -> LayerNorm:
    """Our layer norm with another one's parameters."""
    norm = LayerNorm(source.normalized_shape, eps=source.eps)
    norm.weight, norm.bias = source.weight, source.bias
    return norm


def as_parameter(tensor: Tensor) -> nn.Parameter:
    """The tensor itself where it is a parameter already, else one that shares its values."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
