"""From image and text features to the anomaly map and score (eq. 9-12). Training and the exported graph share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.train.model.bicmci import BiCMCI, TextState
from kanoclip.train.model.conv_adapter import ConvAdapter
from kanoclip.train.model.smoothing import MapSmoothing
from kanoclip.train.model.towers.clip_vv import STAGES, ImageFeatures

TEMPERATURE = 0.07
USUAL_DISTANCE = 5.0
"""A stem's distance of a patch, gain included, that speaks neither for nor against an anomaly: its mean over the real
images that may be trained on is 4.9."""


@dataclass(frozen=True)
class Output:
    """The model's answer.

    Attributes:
        cells: M_a at patch resolution, the mean of the stages and not blurred: [B, rows, columns] in [0, 1].
        map: M of eq. 10, [B, H, W] in [0, 1].
        score: S / 2 of eq. 12, [B] in [0, 1].
    """

    cells: Tensor
    map: Tensor
    score: Tensor


class Head(nn.Module):
    """Bi-CMCI on every stage, the Conv-Adapter, the map and the score.

    Attributes:
        stages: One Bi-CMCI per stage read, or empty when it is left out.
        adapter: The Conv-Adapter, or None when it is left out.
        first_stage: Index of the first stage read; 3 when only the last is (handcrafted prompts).
        self_similarity: What a stem's distance of a patch counts in the logit of its abnormal share.
        global_temperature: tau of the global share in eq. 12.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        size: tuple[int, int],
        *,
        bicmci: bool = True,
        conv_adapter: bool = True,
        last_stage_only: bool = False,
        self_similarity: float = 0.0,
        global_temperature: float = TEMPERATURE,
    ) -> None:
        """Builds an untrained head: exactly the cosine similarity of patches and text.

        Args:
            dim: Width C of the joint space.
            grid: (rows, columns) of patch tokens.
            size: (height, width) of the map.
            bicmci: Refine each stage with Bi-CMCI.
            conv_adapter: Adapt the global feature.
            last_stage_only: Read the last stage alone.
            self_similarity: Weight of a stem's distance; 0 leaves it out.
            global_temperature: tau of the global share; a larger one lets the map decide the score.
        """
        super().__init__()
        self.grid = grid
        self.self_similarity, self.global_temperature = self_similarity, global_temperature
        self.first_stage = STAGES - 1 if last_stage_only else 0
        self.stages = nn.ModuleList(BiCMCI(dim, grid) for _ in range(self.first_stage, STAGES) if bicmci)
        self.adapter = ConvAdapter(dim, grid) if conv_adapter else None
        self.smoothing = MapSmoothing(grid, size)

    def text_states(self, text: Tensor) -> tuple[TextState, ...]:
        """What each Bi-CMCI stage needs of F_text [N, 2, C]; empty without Bi-CMCI."""
        return tuple(stage.text_state(text) for stage in self.stages)

    def forward(self, image: ImageFeatures, text: Tensor, states: Sequence[TextState]) -> Output:
        """Fuses the modalities.

        Args:
            image: From the tower, not normalised.
            text: F_text, L2-normalised, [B, 2, C] or [1, 2, C].
            states: `text_states(text)`.
        """
        stages = [unit(stage) for stage in image.patches]
        maps = []
        for index, patches in enumerate(stages[self.first_stage :]):
            refined = self.stages[index](patches, states[index]) if self.stages else (patches, text)
            maps.append(abnormal_share(*refined, self._prior(image)))
        cells = torch.stack(maps).mean(0).unflatten(1, self.grid)
        anomaly_map = self.smoothing(cells)
        global_token = unit(image.global_token)
        if self.adapter is not None:
            global_token = self.adapter(global_token, stages[-1])
        share = abnormal_share(global_token[:, None], text, temperature=self.global_temperature)[:, 0]
        return Output(cells, anomaly_map, (share + anomaly_map.amax(dim=(1, 2))) / 2)

    def _prior(self, image: ImageFeatures) -> Tensor | None:
        """What self-similarity adds to each patch's logit, float32 [B, P]; None where it is off."""
        if image.distance is None or not self.self_similarity:
            return None
        return self.self_similarity * (image.distance - USUAL_DISTANCE)


def unit(x: Tensor) -> Tensor:
    """L2-normalises the last axis in float32, and returns the dtype that came in."""
    return F.normalize(x.float(), dim=-1).to(x.dtype)


def abnormal_share(
    tokens: Tensor, text: Tensor, prior: Tensor | None = None, temperature: float = TEMPERATURE
) -> Tensor:
    """Softmax over {normal, abnormal} of cosine / tau, abnormal's part, in float32 and without a MatMul.

    Two states make the softmax a sigmoid of one difference of cosines; since M_n = 1 - M_a (eq. 9), eq. 10's
    (M_a + 1 - M_n) / 2 is M_a, and this is the only map that has to be carried.

    Args:
        tokens: [B, P, C], any norm.
        text: [B, 2, C] or [1, 2, C], any norm; state 0 normal, 1 abnormal.
        prior: Added to the logits, float32 [B, P].
        temperature: tau.

    Returns:
        [B, P] float32 in [0, 1].
    """
    directions = F.normalize(text.float(), dim=-1)
    difference = directions[:, 1] - directions[:, 0]
    cosine = (F.normalize(tokens.float(), dim=-1) * difference[:, None]).sum(-1)
    logits = cosine / temperature
    return torch.sigmoid(logits if prior is None else logits + prior)
