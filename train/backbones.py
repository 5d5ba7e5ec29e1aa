"""The CLIP backbones that a model can stand on, and where their weights come from."""

from __future__ import annotations

import copy
import json
import logging
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from open_clip.pretrained import download_pretrained, get_pretrained_cfg

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.model.stem.efficientnet import Variant
from kanoclip.train.model.stem.stem import ConvStem, StemConfig
from kanoclip.train.weights import CLIP, packaged

SEED = 0
_OF_TORCHSCRIPT = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's files have among their weights."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry.

    Attributes:
        name: The name used on the command line and in checkpoints.
        about: One line for people.
        open_clip_name: open_clip's own configuration, or None when ours (configs/NAME.json) is used.
        tag: open_clip's tag of the published weights, or None when nothing can be downloaded.
        quick_gelu: The published weights were trained with QuickGELU. open_clip only warns when that is forgotten.
        sha256: Known digests of published weights files.
        packaged: File of `kanoclip.train.weights` that has its weights, or None.
        self_similarity: `ModelConfig.self_similarity` that its heads begin with.
        global_temperature: `ModelConfig.global_temperature` that they begin with.
    """

    name: str
    about: str
    open_clip_name: str | None = None
    tag: str | None = None
    quick_gelu: bool = False
    sha256: tuple[str, ...] = ()
    packaged: str | None = None
    self_similarity: float = 0.0
    global_temperature: float = 0.07

    def architecture(self) -> dict[str, Any]:
        """open_clip's configuration of this backbone: embed_dim, vision_cfg, text_cfg, quick_gelu.

        A backbone with a convolutional stem has `stem_cfg` beside them.
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


REGISTRY = {
    entry.name: entry
    for entry in (
        Backbone(
            "nano",
            "compact CLIP of this project, 256 px, on a pretrained EfficientNet-Lite0 stem",
            packaged=CLIP,
            self_similarity=1.5,
            global_temperature=1.5,
        ),
        Backbone(
            "vit-l-14-336",
            "OpenAI CLIP ViT-L/14@336, the paper's backbone",
            open_clip_name="ViT-L-14-336",
            tag="openai",
            quick_gelu=True,
        ),
        Backbone("vit-b-16", "OpenAI CLIP ViT-B/16, 224 px", open_clip_name="ViT-B-16", tag="openai", quick_gelu=True),
        Backbone(
            "tinyclip-vit-8m-16",
            "TinyCLIP ViT-8M/16 Text-3M (YFCC15M), 224 px; pass its release file with --weights",
            sha256=("3d9f86a556cd13acc1aa6cc18495a79ffd1f58b6f17a552400bdefd244c3a92c",),
        ),
        Backbone("random-tiny", "a few thousand weights, for tests"),
    )
}


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights came from.

    Attributes:
        origin: `seeded:N`, `openai`, `packaged`, or `file:NAME`.
        sha256: Digest of the file, None for seeded weights.
        trained: False for seeded weights: the model's answers mean nothing.
    """

    origin: str
    sha256: str | None
    trained: bool


def get_backbone(name: str) -> Backbone:
    """Looks a backbone up.

    Raises:
        CheckpointError: Unknown name; the message lists the known ones.
    """
    if name not in REGISTRY:
        raise CheckpointError(f"unknown backbone '{name}': choose one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def load_clip(backbone: Backbone, weights: str = "auto") -> tuple[open_clip.CLIP, Weights]:
    """Builds a backbone and fills it with weights.

    Args:
        backbone: Entry of the registry.
        weights: `auto` (the package's own, or open_clip's download, where there are any, else seeded), `none` (seeded),
            or a file: `.safetensors`, or a state dict that torch reads without unpickling objects.

    Raises:
        CheckpointError: The weights cannot be had, or are not this backbone's.
    """
    if weights == "none" or (weights == "auto" and backbone.tag is None and backbone.packaged is None):
        return seeded_clip(backbone), Weights(f"seeded:{SEED}", None, trained=False)
    clip = seeded_clip(backbone)
    if weights != "auto":
        path, origin = Path(weights), f"file:{Path(weights).name}"
    elif backbone.packaged is not None:
        path, origin = packaged(backbone.packaged), "packaged"
    else:
        path, origin = _downloaded(backbone), str(backbone.tag)
    if not path.is_file():
        raise CheckpointError(f"no weights file {path}: pass --weights FILE, or --weights none for seeded weights")
    digest = sha256_of(path)
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is TorchScript, a program beside its weights, which is not run: write the weights alone with "
            "python -c \"import torch; torch.save(torch.jit.load('FILE', 'cpu').state_dict(), 'weights.pt')\""
        )
    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
        foreign = next((name for name in state if name.startswith(("text_model.", "vision_model."))), None)
        if foreign is None:
            _fill(clip, state, path)
    except Exception as error:  # torch, safetensors and open_clip each raise their own kinds for a bad file
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path} does not hold the weights of {backbone.name} ({reason}): check the file and --backbone"
        ) from error
    if foreign is not None:
        raise CheckpointError(
            f"{path} has the layout of transformers ({foreign}): take open_clip's file of the same weights, such as "
            "open_clip_model.safetensors beside it"
        )
    if backbone.sha256 and digest not in backbone.sha256:
        origin += " (not the release's sha256)"
    return clip, Weights(origin, digest, trained=True)


def _fill(clip: open_clip.CLIP, state: dict[str, torch.Tensor], path: Path) -> None:
    """Fills a CLIP; positional embeddings of another image size are resized, and that is said."""
    for extra in _OF_TORCHSCRIPT:
        state.pop(extra, None)
    own, given = clip.visual.positional_embedding, state.get("visual.positional_embedding")
    if given is not None and len(given) != len(own):
        log.warning(
            "%s: its positional embeddings were resized from %d patches to %d: it was trained at another image size",
            *(path, len(given) - 1, len(own) - 1),
        )
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(clip.logit_scale.shape)
    resize_pos_embed(state, clip)
    resize_text_pos_embed(state, clip)
    clip.load_state_dict(state, strict=True)


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _build(backbone: Backbone) -> open_clip.CLIP:
    architecture = backbone.architecture()
    # Ours to read, and unknown to open_clip.
    stem = architecture.pop("stem_cfg", None)
    clip = open_clip.CLIP(**architecture).eval()
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


def seeded_clip(backbone: Backbone, seed: int = SEED) -> open_clip.CLIP:
    """A backbone with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(backbone)


def _downloaded(backbone: Backbone) -> Path:
    # huggingface_hub logs every retry; the one line below says it better.
    chatter = logging.getLogger("huggingface_hub")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        return Path(download_pretrained(get_pretrained_cfg(backbone.open_clip_name, backbone.tag)))
    except Exception as error:  # huggingface_hub and urllib raise many kinds when there is no network
        model = get_pretrained_cfg(backbone.open_clip_name, backbone.tag).get("hf_hub", "").rstrip("/")
        raise CheckpointError(
            f"cannot download the weights of {backbone.name}: fetch open_clip_model.safetensors of "
            f"https://huggingface.co/{model} elsewhere and pass --weights FILE, or --weights none for seeded weights"
        ) from error
    finally:
        chatter.setLevel(level)
