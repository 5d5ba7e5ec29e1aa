"""From cached or fresh features to the total loss of eq. 13: what learns, and what several processes share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.knowledge.base import ClassTexts
from kanoclip.train.model.kanoclip import KAnoCLIP
from kanoclip.train.model.towers.clip_vv import ImageFeatures
from kanoclip.train.training.config import TrainConfig
from kanoclip.train.training.losses import global_bce, kd_anchored, kd_printed, local_loss

PARTS = ("loss", "kd", "global", "local", "kd_active")
"""What the objective reports of a batch; `kd_active` is the share of images whose class is inside the hinge."""


class Objective(nn.Module):
    """The head, the prompts and the losses. Its parameters are the model's; the tower is not among them."""

    text: Tensor
    knowledge: Tensor
    anchor: Tensor
    has_knowledge: Tensor

    def __init__(
        self,
        model: KAnoCLIP,
        class_names: Sequence[str],
        knowledge: Sequence[ClassTexts],
        config: TrainConfig,
    ) -> None:
        """Encodes what does not change: the knowledge base, and the prompts where they do not learn.

        Args:
            model: Whose prompts and head learn.
            class_names: Words for [class], by class index.
            knowledge: Each class's descriptions; no abnormal one leaves the class out of the KD loss.
            config: alpha, beta and gamma of eq. 13, form and margin of eq. 2.

        Raises:
            TrainingError: Not one entry for each class, or the anchored form lacks a class's normal descriptions.
        """
        super().__init__()
        if len(knowledge) != len(class_names):
            raise TrainingError(f"{len(knowledge)} lists of descriptions for {len(class_names)} classes")
        anchored = config.kd_form == "anchored"
        for name, texts in zip(class_names, knowledge, strict=True):
            if anchored and texts.abnormal and not texts.normal:
                raise TrainingError(f"no normal description of '{name}' to anchor the KD loss: use --kd-form printed")
        for name in class_names:  # one by one: two datasets may have the same class
            model.check_classes([name])
        self.class_names = tuple(class_names)
        self.config = config
        self.encoder, self.prompts, self.head = model.text, model.prompts, model.head
        width = self.encoder.joint_width
        with torch.no_grad():
            # Eq. 3: the mean over the descriptions' features.
            means, anchors = (
                torch.stack([self.encoder.encode(texts).mean(0) if texts else torch.zeros(width) for texts in each])
                for each in (
                    [texts.abnormal for texts in knowledge],
                    [texts.normal if anchored else () for texts in knowledge],
                )
            )
            fixed = torch.empty(0) if self.prompts is not None else model.text_features(class_names)
        self.register_buffer("knowledge", means, persistent=False)
        self.register_buffer("anchor", anchors, persistent=False)
        known = torch.tensor([bool(texts.abnormal) for texts in knowledge])
        self.register_buffer("has_knowledge", known, persistent=False)
        self.register_buffer("text", fixed, persistent=False)

    def forward(
        self,
        image: ImageFeatures,
        class_index: Tensor,
        labels: Tensor,
        masks: Tensor,
        known: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            image: The tower's features, [B, P, C] four times and [B, C].
            class_index: Index into `class_names`, int64 [B].
            labels: 1 for anomalous images, float32 [B].
            masks: 1 for anomalous pixels, uint8 [B, H, W].
            known: Images whose mask is known, bool [B].

        Returns:
            The `PARTS`, float32 scalars; only `loss` carries a gradient.
        """
        classes, position = torch.unique(class_index, return_inverse=True)
        if self.prompts is None:
            text = self.text[classes]
        else:
            text = self.prompts(self.encoder, [self.class_names[i] for i in classes.tolist()])
        # Text states are computed for each class once; the images share them.
        states = [state.select(position) for state in self.head.text_states(text)]
        output = self.head(image, text[position], states)
        with torch.autocast(output.cells.device.type, enabled=False):
            upsampled = self.head.smoothing.upsample(output.cells.float())
            parts = {
                "global": global_bce(output.score, labels),
                "local": local_loss(upsampled, masks, known),
                **self._kd(text, classes, position),
            }
            config = self.config
            total = config.kd_weight * parts["kd"] + config.global_weight * parts["global"]
            total = total + config.local_weight * parts["local"]
        return {"loss": total, **{name: parts[name].detach() for name in PARTS[1:]}}

    def _kd(self, text: Tensor, classes: Tensor, position: Tensor) -> dict[str, Tensor]:
        """KD loss: the mean over the images of their class's hinge, classes without knowledge counting 0."""
        knowledge, margin = self.knowledge[classes], self.config.hinge_margin
        if self.config.kd_form == "anchored":
            hinge = kd_anchored(text, knowledge, self.anchor[classes], margin)
        else:
            hinge = kd_printed(text, knowledge, margin)
        hinge = torch.where(self.has_knowledge[classes], hinge, 0.0)[position]
        return {"kd": hinge.mean(), "kd_active": (hinge > 0).float().mean()}
