"""The losses of eq. 2 and 13-15, all in float32.

Every term is a mean over the images of the batch, so that the mean over several processes' parts of a batch is the
whole batch's value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_GAMMA = 2.0
DICE_SMOOTH = 1.0
SCORE_MARGIN = 1e-6
"""Scores and maps stay this far from 0 and 1, where the logarithm ends."""
SHARED_EPS = 1e-2
"""What is left of a unit vector without its shared part counts as shorter than 1 below this length: the direction of a
remainder near 0 is rounding, and its gradient would have no bound."""


def kd_printed(text: Tensor, knowledge: Tensor, margin: float = 0.0) -> Tensor:
    """Eq. 2 as printed: learned abnormal prompts shall lie nearer to the knowledge base than learned normal ones.

    Args:
        text: F_text of each class, [N, 2, C], state 0 normal and 1 abnormal.
        knowledge: w_k of each class (eq. 3), [N, C].
        margin: Added to the difference of distances, 0 to 2; 0 is the paper's.

    Returns:
        Hinge of each class, [N], at least 0.
    """
    return _hinge(F.normalize(text.float(), dim=-1), F.normalize(knowledge.float(), dim=-1), margin)


def kd_anchored(text: Tensor, knowledge: Tensor, anchor: Tensor, margin: float) -> Tensor:
    """Eq. 2 on what is left of all features without what a class's normal and abnormal descriptions share.

    The descriptions of a class begin alike, normal or not, and that shared part decides plain distances. So the
    midpoint of `anchor` and `knowledge` is taken from each feature before it is normalised again. Knowledge and anchor
    then lie opposite each other: to come nearer to one is to leave the other, and the difference of distances is -2
    where both prompts are where they belong.

    Args:
        text: F_text of each class, [N, 2, C], state 0 normal and 1 abnormal.
        knowledge: w_k of each class (eq. 3), [N, C].
        anchor: The same mean over the class's normal descriptions, [N, C].
        margin: Added to the difference of distances, 0 to 2; 2 is never met in full.

    Returns:
        Hinge of each class, [N], at least 0; 0, without a gradient, where anchor and knowledge are the same.
    """
    abnormal, normal = F.normalize(knowledge.float(), dim=-1), F.normalize(anchor.float(), dim=-1)
    middle = (abnormal + normal) / 2
    means = F.normalize(F.normalize(text.float(), dim=-1) - middle[:, None], dim=-1, eps=SHARED_EPS)
    hinge = _hinge(means, F.normalize(abnormal - middle, dim=-1, eps=SHARED_EPS), margin)
    return torch.where((abnormal - middle).norm(dim=-1) > SHARED_EPS, hinge, 0.0)


def _hinge(means: Tensor, target: Tensor, margin: float) -> Tensor:
    """Hinge of d(target, abnormal) - d(target, normal) + margin: [N] of means [N, 2, C] and targets [N, C]."""
    normal, abnormal = ((target - means[:, state]).norm(dim=-1) for state in (0, 1))
    return torch.relu(abnormal - normal + margin)


def global_bce(scores: Tensor, labels: Tensor) -> Tensor:
    """Eq. 14 on S / 2.

    Args:
        scores: [B] in [0, 1].
        labels: 1 for anomalous, 0 for normal, [B].

    Returns:
        Mean over the images.
    """
    # torch's own raises a RuntimeError for NaN; the trainer names the step where a run diverges.
    scores, labels = scores.float().clamp(SCORE_MARGIN, 1 - SCORE_MARGIN), labels.float()
    return -(labels * scores.log() + (1 - labels) * (1 - scores).log()).mean()


def focal(maps: Tensor, masks: Tensor) -> Tensor:
    """Binary focal loss of M_a, of each image.

    Args:
        maps: M_a at full size, [B, H, W] in [0, 1].
        masks: G, 1 for anomalous pixels, [B, H, W].

    Returns:
        [B], the mean over an image's pixels.
    """
    probability = maps.float().clamp(SCORE_MARGIN, 1 - SCORE_MARGIN)
    right = torch.where(masks > 0, probability, 1 - probability)
    return -((1 - right) ** FOCAL_GAMMA * right.log()).mean(dim=(1, 2))


def dice(maps: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of each image.

    Args:
        maps: [B, H, W] in [0, 1].
        masks: What it should be, [B, H, W] of 0 and 1.

    Returns:
        [B] in [0, 1].
    """
    maps, masks = maps.float(), masks.float()
    common = (maps * masks).sum(dim=(1, 2))
    total = maps.sum(dim=(1, 2)) + masks.sum(dim=(1, 2))
    return 1 - (2 * common + DICE_SMOOTH) / (total + DICE_SMOOTH)


def local_loss(maps: Tensor, masks: Tensor, known: Tensor) -> Tensor:
    """Eq. 15: Focal(M_a, G) + Dice(M_n, 1 - G) + Dice(M_a, G), with M_n = 1 - M_a (eq. 9).

    Args:
        maps: M_a before the Gaussian, at full size, [B, H, W] in [0, 1].
        masks: G, uint8 of 0 and 1, [B, H, W].
        known: Images whose mask is known, bool [B]; the others add nothing.

    Returns:
        Mean over all images of the batch.
    """
    each = focal(maps, masks) + dice(1 - maps.float(), 1 - masks.float()) + dice(maps, masks)
    return torch.where(known, each, 0.0).mean()
