"""The CLIP backbones that a model can stand on, and where their weights come from."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, hf_hub_download

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.stem.efficientnet import Variant
from kanoclip.train.model.stem.stem import ConvStem, StemConfig
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, Normalisation
from kanoclip.train.weights import CLIP, packaged
from kanoclip.train.weights.archive import ArchiveError
from kanoclip.train.weights.files import read_weights
from kanoclip.train.weights.fitting import advice, fill
from kanoclip.train.weights.layouts import State, to_open_clip
from kanoclip.train.weights.published import APACHE, APPLE, MIT, NONE, Licence, published
from kanoclip.train.weights.tokenizer import GemmaTokenizer

SEED = 0
TOKENIZER_FILE = "tokenizer.json"
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


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights came from.

    Attributes:
        origin: `seeded:N`, `openai`, `packaged`, or `file:NAME`.
        sha256: Digest of the file, None for seeded weights.
        trained: False for seeded weights: the model's answers mean nothing.
        layout: Whose names the file's tensors have; empty for seeded weights.
        known: What the file is by its sha256; None for a file that is not known here.
        licence: Of the weights; None where nobody can know it.
        tokenizer: The tokenizer's file, None for CLIP's own.
    """

    origin: str
    sha256: str | None
    trained: bool
    layout: str = ""
    known: str | None = None
    licence: Licence | None = None
    tokenizer: Path | None = None

    @property
    def title(self) -> str:
        """For logs and the manifest: the origin, and for a file its layout and what it is known as."""
        if not self.origin.startswith("file:"):
            return self.origin
        return f"{self.origin} ({self.layout}; {self.known or 'a file whose sha256 is not known here'})"


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


def load_clip(backbone: Backbone, weights: str = "auto") -> tuple[Clip, Weights]:
    """Builds a backbone and fills it with weights.

    Args:
        backbone: Entry of the registry.
        weights: `auto` (the package's own, or open_clip's download, where there are any, else seeded), `none` (seeded),
            or a file: safetensors, a state dict, or OpenAI's TorchScript; by open_clip's, OpenAI's or Hugging Face's
            names. Nothing in it is executed.

    Raises:
        CheckpointError: The weights cannot be had, or are not this backbone's.
    """
    if weights == "none" or (weights == "auto" and backbone.tag is None and backbone.packaged is None):
        return seeded_clip(backbone), Weights(f"seeded:{SEED}", None, trained=False)
    if weights != "auto":
        path, origin = Path(weights), f"file:{Path(weights).name}"
    elif backbone.packaged is not None:
        path, origin = packaged(backbone.packaged), "packaged"
    else:
        path, origin = _downloaded(backbone), str(backbone.tag)
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}: pass --weights FILE, or --weights none for seeded weights")
    try:
        raw = read_weights(path)
        state, layout = to_open_clip(raw)
    except (ArchiveError, OSError) as error:
        what = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"{path} {what} (wanted: the weights of {backbone.name})") from error
    digest = sha256_of(path)
    known = published(digest)
    # OpenAI's archives are all of QuickGELU models; a published file's activation is known by its sha256.
    quick = known.quick_gelu if known is not None else True if layout.startswith("OpenAI") else raw.quick_gelu
    if quick is not None and quick != backbone.quick_gelu:
        kinds = {True: "QuickGELU", False: "GELU"}
        raise CheckpointError(
            f"{path} ({layout}) was trained with {kinds[quick]}, {backbone.name} uses {kinds[backbone.quick_gelu]}: "
            f"{_advice(state, backbone, quick)}"
        )
    clip = seeded_clip(backbone)
    try:
        fill(clip, state)
    except ArchiveError as error:
        hint = "check the file" if "NaN" in str(error) else _advice(state, backbone, quick)
        raise CheckpointError(
            f"{path} ({layout}) does not hold the weights of {backbone.name} ({error}): {hint}"
        ) from error
    published_file = origin == "packaged" or weights == "auto" or known is not None
    return clip, Weights(
        origin,
        digest,
        trained=True,
        layout=layout,
        known=known.title if known is not None else None,
        licence=backbone.licence if published_file else None,
        tokenizer=_tokenizer(backbone, path),
    )


def _advice(state: State, backbone: Backbone, quick_gelu: bool | None) -> str:
    return advice(state, backbone, list(REGISTRY.values()), lambda name: empty_clip(REGISTRY[name]), quick_gelu)


def _tokenizer(backbone: Backbone, weights: Path) -> Path | None:
    """The tokenizer's file beside the weights, which a model that is only read from does not need."""
    if backbone.tokenizer == "clip":
        return None
    path = weights.with_name(TOKENIZER_FILE)
    return path if path.is_file() else None


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


def tokenizer_of(backbone: Backbone, weights: Weights) -> GemmaTokenizer | None:
    """What reads a backbone's texts; None for CLIP's own tokenizer.

    Raises:
        CheckpointError: Its file does not lie beside the weights, or is no good.
    """
    if backbone.tokenizer == "clip":
        return None
    if weights.tokenizer is None:
        hub = get_pretrained_cfg(backbone.open_clip_name, backbone.tag).get("hf_hub", "").rstrip("/")
        raise CheckpointError(
            f"{backbone.name} reads texts with Gemma's tokenizer: put {TOKENIZER_FILE} of https://huggingface.co/{hub} "
            "beside the file of --weights"
        )
    return GemmaTokenizer(weights.tokenizer)


def _downloaded(backbone: Backbone) -> Path:
    # huggingface_hub logs every retry; the one line below says it better.
    chatter = logging.getLogger("huggingface_hub")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        known = get_pretrained_cfg(backbone.open_clip_name, backbone.tag)
        if backbone.tokenizer == "gemma":
            hf_hub_download(known["hf_hub"].rstrip("/"), TOKENIZER_FILE)
        return Path(download_pretrained(known))
    except Exception as error:  # huggingface_hub and urllib raise many kinds when there is no network
        model = get_pretrained_cfg(backbone.open_clip_name, backbone.tag).get("hf_hub", "").rstrip("/")
        raise CheckpointError(
            f"cannot download the weights of {backbone.name}: fetch open_clip_model.safetensors of "
            f"https://huggingface.co/{model} elsewhere and pass --weights FILE, or --weights none for seeded weights"
        ) from error
    finally:
        chatter.setLevel(level)
