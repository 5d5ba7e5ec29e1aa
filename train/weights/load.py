"""Loads a backbone's weights: the package's own, published ones, or a file that somebody has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from open_clip.pretrained import download_pretrained, get_pretrained_cfg, hf_hub_download

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.errors import CheckpointError, one_line, printable
from kanoclip.runtime.ops.fleet.stores.hub import unlogged, whole
from kanoclip.train.backbones import REGISTRY, SEED, Backbone, Clip, empty_clip, seeded_clip
from kanoclip.train.weights import packaged
from kanoclip.train.weights.fitting import advice, fill
from kanoclip.train.weights.formats.archive import ArchiveError, TensorError
from kanoclip.train.weights.formats.files import read_weights
from kanoclip.train.weights.formats.layouts import State, to_open_clip
from kanoclip.train.weights.published import Licence, published
from kanoclip.train.weights.tokenizer import GemmaTokenizer

TOKENIZER_FILE = "tokenizer.json"


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
        what = f"{path} is a folder, no weights file" if path.is_dir() else f"no weights file {path}"
        raise CheckpointError(f"{what}: pass --weights FILE, or --weights none for seeded weights")
    try:
        raw = read_weights(path)
        state, layout = to_open_clip(raw)
    except (ArchiveError, OSError) as error:
        what = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else _shown(error)
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
    except TensorError as error:
        raise CheckpointError(f"{path} ({layout}) is of no use for {backbone.name}: {_shown(error)}") from error
    except ArchiveError as error:
        hint = _advice(state, backbone, quick)
        raise CheckpointError(
            f"{path} ({layout}) does not hold the weights of {backbone.name} ({_shown(error)}): {hint}"
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


def _shown(error: ArchiveError) -> str:
    """What is wrong with a file; the names in it are whatever somebody wrote."""
    return one_line(printable(str(error)), 180)


def _advice(state: State, backbone: Backbone, quick_gelu: bool | None) -> str:
    return advice(state, backbone, list(REGISTRY.values()), lambda name: empty_clip(REGISTRY[name]), quick_gelu)


def _tokenizer(backbone: Backbone, weights: Path) -> Path | None:
    """The tokenizer's file beside the weights, which a model that is only read from does not need."""
    if backbone.tokenizer == "clip":
        return None
    path = weights.with_name(TOKENIZER_FILE)
    return path if path.is_file() else None


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
    """The published weights, from the hub's cache where they are there.

    Raises:
        CheckpointError: They cannot be had.
        FleetError: They are not what the hub's hash says; nothing of them is left in the cache then.
    """
    model = get_pretrained_cfg(backbone.open_clip_name, backbone.tag).get("hf_hub", "").rstrip("/")
    try:
        with unlogged():
            if backbone.tokenizer == "gemma":
                hf_hub_download(model, TOKENIZER_FILE)
            path = Path(download_pretrained(get_pretrained_cfg(backbone.open_clip_name, backbone.tag)))
    except Exception as error:  # huggingface_hub and urllib raise many kinds when there is no network
        raise CheckpointError(
            f"cannot download the weights of {backbone.name}: fetch open_clip_model.safetensors of "
            f"https://huggingface.co/{model} elsewhere and pass --weights FILE, or --weights none for seeded weights"
        ) from error
    # open_clip's other sources have no hash to go by.
    in_cache = path.resolve().parent.name == "blobs"
    return whole(path, f"hf://{model}/{path.name}") if in_cache else path
