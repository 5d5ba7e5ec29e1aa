"""Weights for another image size are refused, and not resized in silence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.weights.load import load_clip

TINY = get_backbone("random-tiny")


def test_another_grid_is_refused(tmp_path):
    state = {name: tensor.contiguous() for name, tensor in seeded_clip(TINY, seed=3).state_dict().items()}
    embedding = state["visual.positional_embedding"]
    side = round((len(embedding) - 1) ** 0.5)
    grid = embedding[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    larger = F.interpolate(grid, size=(side + 2, side + 2), mode="bicubic").permute(0, 2, 3, 1).flatten(0, 2)
    save_file(state, tmp_path / "same.safetensors")
    save_file(
        state | {"visual.positional_embedding": torch.cat([embedding[:1], larger])}, tmp_path / "other.safetensors"
    )
    load_clip(TINY, str(tmp_path / "same.safetensors"))
    with pytest.raises(
        CheckpointError, match=f"another grid, {(side + 2) ** 2 + 1} rows in place of {side * side + 1}"
    ):
        load_clip(TINY, str(tmp_path / "other.safetensors"))
