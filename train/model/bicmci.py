"""Bi-CMCI: bi-directional cross-attention between one stage's patch tokens and the two text states (fig. 3, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kanoclip.train.model.deformable import DeformableSelfAttention
from kanoclip.train.model.layers import LayerNorm, attention, attention_over_two, merge_heads, split_heads

HEADS = 4
RESIDUAL_SCALE = 0.1
"""Each attention is added as 0.1 * W_o(.), so that its first steps do not throw the frozen features away."""


@dataclass(frozen=True)
class TextState:
    """All that a stage needs of the text. It depends on the classes only: baking computes it once per class.

    Attributes:
        tokens: T_i = F_text + text self-attention, [N, 2, C], state 0 normal and 1 abnormal.
        query: Text queries for the visual-to-text direction, [N, heads, 2, D].
        key: Text keys for the text-to-visual direction, [N, heads, 2, D].
        value: Text values for the text-to-visual direction, [N, heads, 2, D].
    """

    tokens: Tensor
    query: Tensor
    key: Tensor
    value: Tensor

    def select(self, index: Tensor) -> TextState:
        """Rows of the first axis, int64 [B]: each picture's class."""
        return TextState(self.tokens[index], self.query[index], self.key[index], self.value[index])


class BiCMCI(nn.Module):
    """One stage. Pre-LN attentions of inner width C/4, zero-initialised outputs, no feed-forward part.

    Untrained, it is the identity on patches and text.
    """

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

    def text_state(self, text: Tensor) -> TextState:
        """Self-attention over the two states and every projection that reads text alone.

        Args:
            text: F_text, L2-normalised, [N, 2, C].
        """
        q, k, v = (split_heads(part, HEADS) for part in self.text_qkv(self.text_norm(text)).chunk(3, dim=-1))
        tokens = text + RESIDUAL_SCALE * self.text_out(merge_heads(attention(q, k, v)))
        normed = self.cross_text_norm(tokens)
        key, value = self.text_to_visual_kv(normed).chunk(2, dim=-1)
        query = self.visual_to_text_q(normed)
        return TextState(tokens, split_heads(query, HEADS), split_heads(key, HEADS), split_heads(value, HEADS))

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
        batch = patches.shape[0]  # not len(): it would fix a dynamic batch while exporting
        q = split_heads(self.text_to_visual_q(normed), HEADS)
        seen = merge_heads(attention_over_two(q, text.key, text.value))
        k, v = (split_heads(part, HEADS) for part in self.visual_to_text_kv(normed).chunk(2, dim=-1))
        read = merge_heads(attention(_batched(text.query, batch), k, v))
        refined_patches = patches + RESIDUAL_SCALE * self.text_to_visual_out(seen)
        refined_text = text.tokens + RESIDUAL_SCALE * self.visual_to_text_out(read)
        return refined_patches, refined_text


def _batched(x: Tensor, batch: int) -> Tensor:
    return x.expand(batch, -1, -1, -1)


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
    return linear
