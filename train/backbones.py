"""The CLIP backbones that a model can stand on, and their towers without weights."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.stem.efficientnet import Variant
from kanoclip.train.model.stem.stem import ConvStem, StemConfig
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, Normalisation
from kanoclip.train.weights import CLIP
from kanoclip.train.weights.published import APACHE, APPLE, MIT, NONE, Licence

SEED = 0
Clip = open_clip.CLIP | open_clip.CustomTextCLIP


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes:
        name: The name used on the command line and in checkpoints.
        about: One line for people.
        open_clip_name: open_clip's own configuration, or None when ours (configs/NAME.json) is used.
        tag: open_clip's tag of the published weights, or None when nothing can be downloaded.
        quick_gelu: The published weights were trained with QuickGELU. open_clip only warns when that is forgotten.
        packaged: File of `kanoclip.train.weights` that has its weights, or None.
        self_similarity: `ModelConfig.self_similarity` that its heads begin with.
        global_temperature: `ModelConfig.global_temperature` that they begin with.
        licence: Of the published weights.
        tokenizer: `clip`, which comes with open_clip, or `gemma`, a tokenizer.json beside the weights.
    """

    name: str
    about: str
    open_clip_name: str | None = None
    tag: str | None = None
    quick_gelu: bool = False
    packaged: str | None = None
    self_similarity: float = 0.0
    global_temperature: float = 0.07
    licence: Licence = MIT
    tokenizer: Literal["clip", "gemma"] = "clip"

    def architecture(self) -> dict[str, Any]:
        """open_clip's configuration of this backbone: embed_dim, vision_cfg, text_cfg, quick_gelu.

        A backbone with a convolutional stem has `stem_cfg` beside them, one with a text tower that is a module of its
        own `custom_text`.
        """
        if self.open_clip_name is None:
            text = resources.files("kanoclip.train.configs").joinpath(f"{self.name}.json").read_text()
            architecture: dict[str, Any] = json.loads(text)
        else:
            architecture = copy.deepcopy(open_clip.get_model_config(self.open_clip_name))
        architecture["quick_gelu"] = self.quick_gelu
        return architecture

    @property
    def native_size(self) -> tuple[int, int]:
        """(height, width) in pixels that its published positional embeddings have."""
        size = int(self.architecture()["vision_cfg"]["image_size"])
        return size, size

    @property
    def normalisation(self) -> Normalisation:
        """What its published weights expect of pixels."""
        if self.open_clip_name is None or self.tag is None:
            return CLIP_PIXELS
        known = get_pretrained_cfg(self.open_clip_name, self.tag)
        if "mean" not in known or "std" not in known:
            return CLIP_PIXELS
        return Normalisation(tuple(known["mean"]), tuple(known["std"]))


def _plain(name: str, about: str, open_clip_name: str, tag: str, licence: Licence = MIT, **more: Any) -> Backbone:
    return Backbone(name, about, open_clip_name, tag, licence=licence, **more)


REGISTRY = {
    entry.name: entry
    for entry in (
        Backbone(
            "nano",
            "compact CLIP of this project, on a pretrained EfficientNet-Lite0 stem",
            packaged=CLIP,
            self_similarity=1.5,
            global_temperature=1.5,
            licence=APACHE,
        ),
        _plain("vit-l-14-336", "OpenAI CLIP, the paper's backbone", "ViT-L-14-336", "openai", quick_gelu=True),
        _plain("vit-b-16", "OpenAI CLIP", "ViT-B-16", "openai", quick_gelu=True),
        _plain("vit-l-14", "OpenAI CLIP", "ViT-L-14", "openai", quick_gelu=True),
        _plain("vit-b-16-datacomp", "DataComp-XL", "ViT-B-16", "datacomp_xl_s13b_b90k"),
        _plain("vit-b-16-laion2b", "LAION-2B", "ViT-B-16", "laion2b_s34b_b88k"),
        _plain("vit-l-14-datacomp", "DataComp-XL", "ViT-L-14", "datacomp_xl_s13b_b90k"),
        _plain("vit-l-14-laion2b", "LAION-2B, pixels from -1 to 1", "ViT-L-14", "laion2b_s32b_b82k"),
        _plain("vit-b-32-256", "DataComp-XL", "ViT-B-32-256", "datacomp_s34b_b86k"),
        _plain("vit-b-16-plus-240", "LAION-400M", "ViT-B-16-plus-240", "laion400m_e32"),
        _plain("siglip2-b-16", "SigLIP 2", "ViT-B-16-SigLIP2", "webli", APACHE, tokenizer="gemma"),
        _plain("siglip2-l-16-256", "SigLIP 2", "ViT-L-16-SigLIP2-256", "webli", APACHE, tokenizer="gemma"),
        _plain("pe-core-t-16-384", "Meta's Perception Encoder", "PE-Core-T-16-384", "meta", APACHE),
        _plain("pe-core-s-16-384", "Meta's Perception Encoder", "PE-Core-S-16-384", "meta", APACHE),
        _plain("pe-core-b-16", "Meta's Perception Encoder", "PE-Core-B-16", "meta", APACHE),
        _plain("pe-core-l-14-336", "Meta's Perception Encoder", "PE-Core-L-14-336", "meta", APACHE),
        _plain("eva02-b-16", "EVA-02 CLIP", "EVA02-B-16", "merged2b_s8b_b131k"),
        _plain("eva02-l-14-336", "EVA-02 CLIP", "EVA02-L-14-336", "merged2b_s6b_b61k"),
        _plain("dfn2b-b-16", "Apple's DFN-2B", "ViT-B-16", "dfn2b", APPLE, quick_gelu=True),
        _plain("dfn2b-l-14", "Apple's DFN-2B", "ViT-L-14", "dfn2b", APPLE, quick_gelu=True),
        _plain("mobileclip2-l-14", "Apple's MobileCLIP2-L", "MobileCLIP2-L-14", "dfndr2b", APPLE),
        Backbone("tinyclip-vit-8m-16", "TinyCLIP ViT-8M/16 Text-3M (YFCC15M); pass its release file with --weights"),
        Backbone("random-tiny", "a few thousand weights, for tests", licence=NONE),
    )
}
_MIXES = "its patches are mixed by convolutions, which have no V to attend to"
UNSUITED = {
    **dict.fromkeys(("mobileclip2-s0", "mobileclip2-s2", "mobileclip2-s3", "mobileclip2-s4", "convnext"), _MIXES),
    "mobileclip2-b": "its patches come from a stem of three convolutions with batch norm, not from one",
    "rn50": "it is a ResNet, without transformer blocks over patches",
}
"""Image towers that people ask for and that V-V attention cannot be had of."""


def get_backbone(name: str) -> Backbone:
    """Looks a backbone up.

    Raises:
        CheckpointError: Unknown name, or one that V-V attention cannot be had of; the message says which would do.
    """
    if name in UNSUITED:
        raise CheckpointError(
            f"{name} does not suit V-V attention: {UNSUITED[name]}; `kanoclip-export --list-backbones` shows what does"
        )
    if name not in REGISTRY:
        raise CheckpointError(f"unknown backbone '{name}': choose one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def empty_clip(backbone: Backbone) -> Clip:
    """A backbone with the values that torch's generator gives; on the meta device with none.

    Raises:
        CheckpointError: open_clip built it without the activation that its weights need.
    """
    architecture = backbone.architecture()
    # Ours to read, and unknown to open_clip.
    stem = architecture.pop("stem_cfg", None)
    custom = architecture.pop("custom_text", False)
    clip = open_clip.CustomTextCLIP(**architecture).eval() if custom else open_clip.CLIP(**architecture).eval()
    if stem is not None:
        config = StemConfig(Variant[stem["variant"]], stem["descriptor_channels"])
        clip.visual.conv1 = ConvStem(config, architecture["vision_cfg"]["width"], backbone.native_size).eval()
    if backbone.quick_gelu:
        wrong = [
            name
            for name, module in clip.named_modules()
            if name.endswith("mlp.gelu") and not isinstance(module, open_clip.transformer.QuickGELU)
        ]
        if wrong:
            raise CheckpointError(
                f"open_clip built {backbone.name} without QuickGELU ({wrong[0]}): its published weights need it"
            )
    return clip


def seeded_clip(backbone: Backbone, seed: int = SEED) -> Clip:
    """A backbone with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return empty_clip(backbone)
