"""Checkpoints: what was learned (safetensors) and what it belongs to (json). CLIP's own weights stay outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.errors import CheckpointError
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig, Prompts
from kanoclip.train.model.towers.blocks import GlobalToken
from kanoclip.train.weights.fitting import FLOATS
from kanoclip.train.weights.formats.files import lfs_pointer
from kanoclip.train.weights.load import Weights, load_clip, tokenizer_of

SCHEMA = 1
_LATER = {"self_similarity", "global_temperature"}
"""Fields of the configuration that checkpoints of the first release do not have."""


@dataclass(frozen=True)
class LoadedModel:
    """A model and where its weights came from.

    Attributes:
        model: In eval mode.
        weights: The backbone's weights.
        checkpoint_sha256: Digest of the checkpoint's tensors, None when the prompts and the head are untrained.
    """

    model: KAnoCLIP
    weights: Weights
    checkpoint_sha256: str | None

    @property
    def trained(self) -> bool:
        """Whether the answers mean anything: a published backbone, with learned prompts or ones made of words."""
        learned = self.checkpoint_sha256 is not None or self.model.config.prompts != "learned"
        return self.weights.trained and learned


def build_model(config: ModelConfig, weights: str = "auto", seed: int = 0) -> LoadedModel:
    """An untrained model on a backbone.

    Args:
        config: The model's shape.
        weights: As `load_clip` takes it.
        seed: Of the prompts' and the head's first values.

    Raises:
        CheckpointError: Unknown backbone, or weights that cannot be had.
    """
    backbone = get_backbone(config.backbone)
    clip, origin = load_clip(backbone, weights)
    tokenizer = tokenizer_of(backbone, origin)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KAnoCLIP(clip, config, normalisation=backbone.normalisation, tokenizer=tokenizer)
        return LoadedModel(model, origin, None)


def save_checkpoint(
    path: Path,
    model: KAnoCLIP,
    weights: Weights,
    *,
    learned: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes PATH.safetensors and its PATH.json, each beside its place and then renamed.

    Args:
        path: Ends in `.safetensors`.
        model: Whose learnable tensors are stored.
        weights: The backbone weights it was trained on.
        learned: Tensors to store in place of the model's own (averaged ones).
        training: How it was trained, for people; put into the json and not read again.

    Raises:
        CheckpointError: The path has another suffix, or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: a checkpoint's name ends in .safetensors")
    stored = model.learnable() if learned is None else learned
    tensors = save({name: tensor.detach().cpu().contiguous() for name, tensor in stored.items()})
    record = {
        "schema": SCHEMA,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
        "config": asdict(model.config),
        "backbone_sha256": weights.sha256,
        "backbone_origin": weights.title,
        **({"training": dict(training)} if training is not None else {}),
    }
    try:
        # The description first, with the tensors' digest: a crash between the two is noticed when they are read.
        replace_file(path.with_suffix(".json"), json.dumps(record, indent=2).encode())
        replace_file(path, tensors)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {error.filename or path}: {error.strerror}; what lay there before is still whole"
        ) from error


def load_checkpoint(path: Path, weights: str = "auto", size: tuple[int, int] | None = None) -> LoadedModel:
    """Reads a checkpoint and builds its model.

    Args:
        path: The `.safetensors` file; its `.json` lies beside it.
        weights: Where the backbone's weights come from, as `load_clip` takes it.
        size: (height, width) to run it at; None for the one that it was trained at. Nothing that it learned depends on
            the size.

    Raises:
        CheckpointError: A file is missing or damaged, or the checkpoint is of another architecture or other weights.
    """
    record = _read_record(path)
    config, backbone_sha256 = record.config, record.backbone_sha256
    if size is not None:
        config = replace(config, image_size=size)
    loaded = build_model(config, weights)
    if loaded.weights.sha256 != backbone_sha256:
        wanted_weights = f"sha256 {backbone_sha256[:12]}..." if backbone_sha256 else "seeded: --weights none"
        raise CheckpointError(
            f"{path} was trained on other weights of {config.backbone} ({wanted_weights}, "
            f"got {loaded.weights.origin}): pass the right file with --weights"
        )
    try:
        if pointer := lfs_pointer(path):
            raise CheckpointError(f"{path} is {pointer}")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}): copy it again") from error
    wanted = loaded.model.learnable()
    problems = [f"{name} is missing" for name in wanted if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in wanted]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, expected {list(wanted[name].shape)}"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise CheckpointError(f"{path} is of another architecture than its json says: {problems[0]}{more}")
    if other := [name for name, tensor in tensors.items() if tensor.dtype not in FLOATS]:
        raise CheckpointError(f"{path}: {other[0]} is {tensors[other[0]].dtype}: take what kanoclip-train has written")
    if bad := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise CheckpointError(f"{path}: {bad[0]} holds NaN or infinity: the training run has diverged")
    digest = sha256_of(path)
    if digest != record.tensors_sha256:
        raise CheckpointError(f"{path} and the .json beside it are of two different runs: copy both files again")
    loaded.model.load_state_dict(tensors, strict=False)  # strict was done above, over what a checkpoint holds
    return LoadedModel(loaded.model, loaded.weights, digest)


@dataclass(frozen=True)
class _Record:
    """The json beside the tensors."""

    config: ModelConfig
    backbone_sha256: str | None
    tensors_sha256: str


def _read_record(path: Path) -> _Record:
    beside = path.with_suffix(".json")
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {path}")
    if not beside.is_file():
        raise CheckpointError(f"{beside} is missing: a checkpoint is a .safetensors file and the .json beside it")
    try:
        record: Any = json.loads(read_small(beside))
        if record["schema"] != SCHEMA:
            raise CheckpointError(f"{beside} has schema {record['schema']}, this version reads {SCHEMA}: upgrade")
        values = record["config"]
        # What came later has the value that it had before it could be chosen.
        needed = {field.name for field in fields(ModelConfig)} - _LATER
        unknown = (set(values) ^ needed) - _LATER
        if unknown:
            raise CheckpointError(f"{beside}: config fields {sorted(unknown)} are unknown or missing")
        config = ModelConfig(**{**values, "image_size": _size(values["image_size"])})
        _check_config(config)
        backbone, tensors = record["backbone_sha256"], record["tensors_sha256"]
        if not isinstance(backbone, str | None) or not isinstance(tensors, str):
            raise TypeError("a sha256 is not text")
        return _Record(config, backbone, tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{beside} is not a checkpoint's description ({error}): copy it again") from error


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    if type(height) is not int or type(width) is not int:
        raise TypeError(f"image_size is {value!r}")
    return height, width


def _check_config(config: ModelConfig) -> None:
    if not isinstance(config.backbone, str):
        raise TypeError(f"backbone is {config.backbone!r}")
    if config.prompts not in get_args(Prompts):
        raise ValueError(f"prompts is {config.prompts!r}")
    if config.global_token not in get_args(GlobalToken):
        raise ValueError(f"global_token is {config.global_token!r}")
    if type(config.prompt_length) is not int or not 1 <= config.prompt_length <= 64:
        raise ValueError(f"prompt_length is {config.prompt_length!r}")
    for name in ("self_similarity", "global_temperature"):
        value = getattr(config, name)
        if type(value) not in (int, float) or not 0 <= value <= 100:
            raise ValueError(f"{name} is {value!r}")
    if config.global_temperature == 0:
        raise ValueError("global_temperature is 0")
    for name in ("vv", "bicmci", "conv_adapter"):
        if not isinstance(getattr(config, name), bool):
            raise TypeError(f"{name} is not true or false")
