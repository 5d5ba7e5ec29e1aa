"""Bi-CMCI: bi-directional cross-attention between one stage's patch tokens and the two text states (fig. 3, eq. 9).

The text is two tokens that depend on the classes only, so whatever multiplies a text token is multiplied once per class
and not once per frame: a text key times the patches' query projection is one vector that every patch is compared with,
a text value times the output projection is one vector that is added, and a text query times the patches' key projection
is one vector again. No patch is projected for the cross-attentions at all; the result is the same but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce

import torch
from torch import Tensor, nn

from kanoclip.train.model.deformable import DeformableSelfAttention
from kanoclip.train.model.layers import LayerNorm, attention, merge_heads, split_heads

HEADS = 4
RESIDUAL_SCALE = 0.1
"""Each attention is added as 0.1 * W_o(.), so that its first steps do not throw the frozen features away."""


@dataclass(frozen=True)
class TextState:
    """All that a stage needs of the text. It depends on the classes only: baking computes it once per class.

    Attributes:
        tokens: T_i = F_text + text self-attention, [N, 2, C], state 0 normal and 1 abnormal.
        probes: What each layer-normed patch is multiplied with, [N, C, 3 * heads]: per head the difference of the two
            states' logits (text to visual), then per head and state the logit of the state's query (visual to text).
        bias: Of the difference of logits, [N, 1, heads].
        normal: What a patch gains that reads the normal state alone, [N, 1, C].
        change: What reading the abnormal state instead adds to that, head by head, [N, heads, C].
    """

    tokens: Tensor
    probes: Tensor
    bias: Tensor
    normal: Tensor
    change: Tensor

    def select(self, index: Tensor) -> TextState:
        """Rows of the first axis, int64 [B]: each image's class."""
        return TextState(*(getattr(self, field.name)[index] for field in fields(self)))


class BiCMCI(nn.Module):
    """One stage. Pre-LN attentions of inner width C/4, zero-initialised outputs, no feed-forward part.

    Untrained, it is the identity on patches and text.
    """

    own_head: Tensor

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        """Builds a stage for patch tokens of a grid (rows, columns) in the joint space of width `dim`."""
        super().__init__()
        inner = dim // 4
        self.text_norm = LayerNorm(dim)
        self.text_qkv = nn.Linear(dim, 3 * inner)
        self.text_out = _zero_linear(inner, dim)
        self.deformable = DeformableSelfAttention(dim, inner, HEADS, grid)
        self.deformable_norm = LayerNorm(dim)
        self.deformable_out = _zero_linear(inner, dim)
        self.cross_text_norm = LayerNorm(dim)
        self.cross_patch_norm = LayerNorm(dim)
        self.text_to_visual_q = nn.Linear(dim, inner)
        self.text_to_visual_kv = nn.Linear(dim, 2 * inner)
        self.text_to_visual_out = _zero_linear(inner, dim)
        self.visual_to_text_q = nn.Linear(dim, inner)
        self.visual_to_text_kv = nn.Linear(dim, 2 * inner)
        self.visual_to_text_out = _zero_linear(inner, dim)
        own_head = torch.eye(HEADS).repeat_interleave(2, 0).repeat_interleave(inner // HEADS, 1)
        self.register_buffer("own_head", own_head, persistent=False)

    def text_state(self, text: Tensor) -> TextState:
        """Self-attention over the two states and every product that has a text token in it.

        Args:
            text: F_text, L2-normalised, [N, 2, C].
        """
        q, k, v = (split_heads(part, HEADS) for part in self.text_qkv(self.text_norm(text)).chunk(3, dim=-1))
        tokens = text + RESIDUAL_SCALE * self.text_out(merge_heads(attention(q, k, v)))
        normed = self.cross_text_norm(tokens)
        key, value = (split_heads(part, HEADS) for part in self.text_to_visual_kv(normed).chunk(2, dim=-1))
        query = split_heads(self.visual_to_text_q(normed), HEADS)
        scale = key.shape[-1] ** -0.5
        apart = (key[:, :, 1] - key[:, :, 0]) * scale
        to_query = self.text_to_visual_q
        differences = torch.einsum("nhd,hdc->nch", apart, to_query.weight.unflatten(0, (HEADS, -1)))
        # The key's bias is left out: it adds the same to every patch's logit, which softmax does not see.
        keys = self.visual_to_text_kv.weight.chunk(2)[0].unflatten(0, (HEADS, -1))
        queries = torch.einsum("nhsd,hdc->nchs", query * scale, keys).flatten(2)
        to_output = self.text_to_visual_out
        values = RESIDUAL_SCALE * torch.einsum("nhsd,chd->nshc", value, to_output.weight.unflatten(1, (HEADS, -1)))
        return TextState(
            tokens,
            torch.cat([differences, queries], dim=-1),
            (apart * to_query.bias.unflatten(0, (HEADS, -1))).sum(-1)[:, None],
            values[:, 0].sum(1, keepdim=True) + RESIDUAL_SCALE * to_output.bias,
            values[:, 1] - values[:, 0],
        )

    def forward(self, patches: Tensor, text: TextState) -> tuple[Tensor, Tensor]:
        """Refines both modalities; both directions read the state before either is updated.

        Args:
            patches: L2-normalised patch tokens of the stage, [B, P, C].
            text: The batch's text, first axis B or 1.

        Returns:
            Refined patches [B, P, C] and refined text [B, 2, C], neither normalised.
        """
        patches = patches + RESIDUAL_SCALE * self.deformable_out(self.deformable(self.deformable_norm(patches)))
        normed = self.cross_patch_norm(patches)
        logits = normed @ text.probes
        # Softmax over two states is a sigmoid of the difference of their logits: the only float32 here.
        abnormal = torch.sigmoid(logits[..., :HEADS].float() + text.bias).to(patches.dtype)
        refined_patches = patches + (text.normal + abnormal @ text.change)
        weights = torch.softmax(logits[..., HEADS:], dim=1).to(normed.dtype)
        # The mean of the patches' values is the value of their mean; each row keeps its own head's part of it.
        seen = self.visual_to_text_kv(weights.transpose(1, 2) @ normed).chunk(2, dim=-1)[1]
        # Each number has one term that is not 0. Added one by one: a sum is written with casts to float32 around it.
        read = reduce(torch.add, (seen * self.own_head.to(seen.dtype)).chunk(HEADS, dim=1))
        refined_text = text.tokens + RESIDUAL_SCALE * self.visual_to_text_out(read)
        return refined_patches, refined_text


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    return linear
