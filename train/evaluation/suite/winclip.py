"""WinCLIP without references: CLIP looks through windows of a few patches, and their answers are put together.

Each window's tokens go through the image tower alone, with the class token and the positions that they have in the
whole image. Windows of two sizes and the whole image are averaged harmonically, so that one confident "normal" weighs
more than several doubtful ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import CheckpointError, KanoclipError
from kanoclip.runtime.types import FloatMap, Image
from kanoclip.train.checkpoint import LoadedModel
from kanoclip.train.evaluation.predictor import CheckpointPredictor
from kanoclip.train.model.head import abnormal_share
from kanoclip.train.model.kanoclip import to_pixels

WINDOWS = (2, 3)
"""Sides in patches, as WinCLIP's; the whole image is the third scale."""
TEMPERATURE = 0.01
"""CLIP's own, which its logit scale of 100 stands for."""
_AT_ONCE = 256
_LEAST = 1e-6


class WindowPredictor(CheckpointPredictor):
    """A plain CLIP in torch, through windows."""

    def __init__(self, loaded: LoadedModel, device: str, name: str) -> None:
        """Moves the model to a device and lays the windows out.

        Raises:
            KanoclipError: There is no such device, or the tower's blocks know their tokens by their number.
        """
        super().__init__(loaded, device, name)
        tower: Any = self.model.tower
        if tower.stem is not None or tower.prefix != 1 or tower.pool is not None or tower.blocks[0].cos is not None:
            raise CheckpointError(
                f"{loaded.model.config.backbone} gives no window's answer (WinCLIP cuts a class token's ViT with "
                "learned positions): choose vit-b-16-plus-240 or another plain ViT"
            )
        self.about |= {"kind": "windows", "windows": list(WINDOWS)}
        self.windows: list[Tensor] = [windows(tower.grid, side).to(self.device) for side in WINDOWS]

    def predict(self, images: Sequence[Image], class_name: str) -> list[tuple[FloatMap, float]]:
        """Image by image: the map of all scales, and the whole image's own score (WinCLIP's zero-shot one)."""
        with torch.inference_mode():
            if class_name not in self._text:
                self._text[class_name] = self.model.text_features([class_name])
            text = self._text[class_name]
            found = [self._one(image, text) for image in images]
        if not all(np.isfinite(anomaly_map).all() and np.isfinite(score) for anomaly_map, score in found):
            raise KanoclipError(f"{self.about['name']} gives NaN: check its weights")
        return found

    def _one(self, image: Image, text: Tensor) -> tuple[FloatMap, float]:
        tower = self.model.tower
        frame = torch.from_numpy(resize(image, *self.size)[None]).to(self.device)
        tokens = tower.embed(to_pixels(frame, tower.normalisation))
        whole = self._shares(tokens, text)
        scales = [whole.expand(tower.grid[0] * tower.grid[1])]
        for rows in self.windows:
            cut = torch.cat([tokens[:, :1].expand(len(rows), -1, -1), tokens[0, 1:][rows]], dim=1)
            scales.append(spread(self._shares(cut, text), rows, tower.grid))
        cells = harmonic(torch.stack(scales)).reshape(tower.grid)
        anomaly_map = self.model.head.smoothing(cells[None])[0]
        return anomaly_map.float().cpu().numpy(), float(whole[0])

    def _shares(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Each sequence's abnormal share by its class token, [W]."""
        found = []
        for part in torch.split(tokens, _AT_ONCE):
            features = self.model.tower.encode(part).global_token
            found.append(abnormal_share(features[:, None], text, temperature=TEMPERATURE)[:, 0])
        return torch.cat(found)


def windows(grid: tuple[int, int], side: int) -> Tensor:
    """Patches of every window of side x side that lies inside of a grid: int64 [windows, side * side]."""
    rows, columns = grid
    side_y, side_x = min(side, rows), min(side, columns)
    index = torch.arange(rows * columns).view(rows, columns)
    return index.unfold(0, side_y, 1).unfold(1, side_x, 1).flatten(2).flatten(0, 1).contiguous()


def spread(shares: Tensor, rows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Each patch's harmonic mean over the windows that it lies in: [P].

    Args:
        shares: Of each window, [W] in [0, 1].
        rows: `windows`.
        grid: (rows, columns).
    """
    inverse = (1 / shares.clamp_min(_LEAST)).float().repeat_interleave(rows.shape[1])
    empty = torch.zeros(grid[0] * grid[1], device=shares.device)
    total = empty.index_add(0, rows.flatten(), inverse)
    count = empty.index_add(0, rows.flatten(), torch.ones_like(inverse))
    return count / total


def harmonic(scales: Tensor) -> Tensor:
    """Harmonic mean over the first axis."""
    return len(scales) / (1 / scales.clamp_min(_LEAST)).sum(0)
