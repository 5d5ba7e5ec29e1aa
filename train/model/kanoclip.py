"""The whole model: frozen tower and text encoder, learnable prompts and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import open_clip
import torch
from torch import Tensor, nn

from kanoclip.train.model.head import TEMPERATURE, Head, Output
from kanoclip.train.model.text.encoder import TextEncoder, Tokenizer
from kanoclip.train.model.text.prompts import (
    LEARNED_STATES,
    TEMPLATE_STATES,
    LearnablePrompts,
    check_classes,
    handcrafted_features,
    handcrafted_states,
    template_features,
)
from kanoclip.train.model.towers.blocks import GlobalToken
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, ClipVV, Normalisation

Prompts = Literal["learned", "template", "handcrafted"]


@dataclass(frozen=True)
class ModelConfig:
    """All that decides the model's shape; a checkpoint stores it.

    Attributes:
        backbone: A name of the registry in `kanoclip.train.backbones`.
        image_size: (height, width) in pixels.
        vv: Local-aware V-V path in the tower.
        bicmci: Bi-CMCI on every stage.
        conv_adapter: Conv-Adapter on the global feature.
        prompts: `learned` (eq. 1), `template` (`a photo of a normal [class]`, the ablation without KnPL) or
            `handcrafted`, which bypasses every learned module and reads the last stage.
        prompt_length: K, learnable vectors per state.
        global_token: Which path's class token is the global feature.
        self_similarity: Weight of a stem's self-similarity in the map's logits; 0, the paper's, leaves it out.
        global_temperature: tau of the global share in eq. 12; 0.07 is the paper's.
    """

    backbone: str
    image_size: tuple[int, int]
    vv: bool = True
    bicmci: bool = True
    conv_adapter: bool = True
    prompts: Prompts = "learned"
    prompt_length: int = 12
    global_token: GlobalToken = "original"
    self_similarity: float = 0.0
    global_temperature: float = TEMPERATURE


class KAnoCLIP(nn.Module):
    """KAnoCLIP (fig. 1). Only `prompts` and `head` learn; the tower and the text encoder are CLIP's, frozen."""

    def __init__(
        self,
        clip: open_clip.CLIP | open_clip.CustomTextCLIP,
        config: ModelConfig,
        *,
        normalisation: Normalisation = CLIP_PIXELS,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Takes over an open_clip model, sharing its parameters.

        Args:
            clip: Image and text tower.
            config: The model's shape.
            normalisation: What the image tower expects of pixels.
            tokenizer: What the text tower was trained with; None for CLIP's own.

        Raises:
            CheckpointError: The image tower is not one that CLIP-VV can read.
        """
        super().__init__()
        self.config = config
        handcrafted = config.prompts == "handcrafted"
        self.tower = ClipVV(
            clip.visual,
            config.image_size,
            vv=config.vv,
            global_token=config.global_token,
            normalisation=normalisation,
        )
        self.text = TextEncoder(clip, tokenizer)
        learned = config.prompts == "learned"
        self.prompts = LearnablePrompts(self.text.width, config.prompt_length) if learned else None
        self.head = Head(
            self.tower.joint_width,
            self.tower.grid,
            config.image_size,
            bicmci=config.bicmci and not handcrafted,
            conv_adapter=config.conv_adapter and not handcrafted,
            last_stage_only=handcrafted,
            self_similarity=config.self_similarity,
            global_temperature=config.global_temperature,
        )
        self.eval()

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuses class names that the prompts cannot tell apart or see whole.

        Raises:
            SettingsError: The message names the class.
        """
        learned = self.config.prompts == "learned"
        fixed = TEMPLATE_STATES if self.config.prompts == "template" else handcrafted_states()
        length = self.text.context_length - (self.config.prompt_length if learned else 0)
        check_classes(self.text, classes, LEARNED_STATES if learned else fixed, length)

    def text_features(self, classes: Sequence[str]) -> Tensor:
        """F_text of each class: [classes, 2, C], L2-normalised, state 0 normal and 1 abnormal."""
        if self.prompts is None:
            fixed = template_features if self.config.prompts == "template" else handcrafted_features
            return fixed(self.text, classes)
        features: Tensor = self.prompts(self.text, classes)
        return features

    def forward(self, pixels: Tensor, text: Tensor) -> Output:
        """Scores images.

        Args:
            pixels: Normalised RGB, [B, 3, H, W].
            text: Each image's F_text [B, 2, C], or [1, 2, C] for all of them.
        """
        output: Output = self.head(self.tower(pixels), text, self.head.text_states(text))
        return output

    def learnable(self) -> dict[str, Tensor]:
        """Names and tensors of what learns: the checkpoint's content."""
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(("prompts.", "head."))}


@torch.no_grad()
def to_pixels(frames: Tensor, normalisation: Normalisation = CLIP_PIXELS) -> Tensor:
    """Frames as the camera gives them -> the image tower's input.

    Args:
        frames: uint8 [B, H, W, 3], BGR, at model size.
        normalisation: The tower's.

    Returns:
        float32 [B, 3, H, W], RGB, less the mean and over the std.
    """
    rgb = frames.flip(-1).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(normalisation.mean, device=frames.device)[:, None, None]
    std = torch.tensor(normalisation.std, device=frames.device)[:, None, None]
    return (rgb - mean) / std
