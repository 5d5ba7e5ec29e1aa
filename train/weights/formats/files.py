"""A weights file's tensors, whatever people's tools have written them with; nothing in it is executed."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kanoclip.train.weights.formats.archive import ArchiveError, ScriptModule, read_archive

_POINTER = b"version https://git-lfs"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class RawWeights:
    """What a file holds, under the names it has there.

    Attributes:
        tensors: By name, without the names of wrappers in front.
        script: Whether it is a TorchScript archive.
        quick_gelu: The activation that a configuration beside the file names; None where nothing does.
    """

    tensors: dict[str, Tensor]
    script: bool = False
    quick_gelu: bool | None = None


def read_weights(path: Path) -> RawWeights:
    """Reads a weights file by its content, not by its name.

    Raises:
        ArchiveError: It is no weights file, cut short, or holds more than tensors.
    """
    with path.open("rb") as file:
        start = file.read(512)
    script = False
    if pointer := lfs_pointer(path):
        raise ArchiveError(f"is {pointer}")
    if start[:4] == b"PK\x03\x04":
        content, script = read_archive(path)
    elif start[8:9] == b"{":
        content = _safetensors(path)
    elif start[:1] == b"\x80":
        content = _legacy(path)
    elif start.lstrip()[:1] == b"{":
        raise ArchiveError("is JSON, such as a configuration or an index, not weights: pass the file of tensors")
    elif start.lstrip()[:1] == b"<":
        raise ArchiveError("is a web page, not weights: download the file itself")
    else:
        raise ArchiveError("is neither safetensors nor an archive of torch, or is cut short: copy it again")
    tensors = _flat(content)
    if not tensors:
        raise ArchiveError("holds no tensors")
    return RawWeights(_unprefixed(tensors), script, _activation(path))


def lfs_pointer(path: Path) -> str | None:
    """What a pointer is that Git LFS has left in a file's place, and the remedy; None for any other file."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith(_POINTER):
        return None
    sizes = [line.partition(" ")[2] for line in start.decode("ascii", "replace").splitlines() if line[:5] == "size "]
    size = f" to {int(sizes[0]) / 2**20:.0f} MiB" if sizes and sizes[0].isdecimal() else ""
    return f"a Git LFS pointer{size}, not the weights: run `git lfs pull` where it is"


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        raise ArchiveError(
            f"is no whole safetensors file ({' '.join(str(error).split())[:80]}): copy it again"
        ) from error


def _legacy(path: Path) -> Any:
    """torch.save before 1.6; torch's own reader of tensors alone takes it."""
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        raise ArchiveError("is a pickle, and TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD would have it executed: unset it")
    try:
        with path.open("rb") as file:  # by its name, torch would take it for another kind
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
    ) as error:
        raise ArchiveError(
            "is a pickle that holds more than tensors, or is cut short; it is not executed: save the model's "
            "state_dict again with torch"
        ) from error


def _flat(content: Any) -> dict[str, Tensor]:
    """A state dict out of a training run's wrapper or a TorchScript module; other values are left behind."""
    if isinstance(content, ScriptModule):
        return dict(_walk(content, ""))
    if not isinstance(content, Mapping):
        return {}
    if not any(isinstance(value, Tensor) for value in content.values()):
        for name in _WRAPPERS:
            if isinstance(content.get(name), Mapping | ScriptModule):
                return _flat(content[name])
    # AnomalyCLIP wraps its prompts in a name of their own: `layouts` knows them by it.
    found: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            found[str(name)] = value
        elif isinstance(value, Mapping):
            found |= {f"{name}.{inner}": one for inner, one in value.items() if isinstance(one, Tensor)}
    return found


def _walk(module: ScriptModule, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in module.held.items():
        if isinstance(value, Tensor):
            found.append((prefix + str(name), value))
        elif isinstance(value, ScriptModule):
            found += _walk(value, f"{prefix}{name}.")
    return found


def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in (*_PREFIXES, *_PREFIXES):  # compiled and distributed, in any order
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    # A training run's own module, such as `model.` or `clip.`, with the CLIP and nothing else in it.
    towers = ("visual.", "vision_model.")
    own = next((name.partition(tower)[0] for tower in towers for name in tensors if tower in name), "")
    if all(name.startswith(own) for name in tensors):
        tensors = {name.removeprefix(own): tensor for name, tensor in tensors.items()}
    return tensors


def _activation(path: Path) -> bool | None:
    """Whether the configuration beside a file says QuickGELU: Hugging Face's config.json, or open_clip's own."""
    ours = _json(path.with_name("open_clip_config.json")).get("model_cfg")
    if isinstance(ours, Mapping):
        return bool(ours.get("quick_gelu", False))
    theirs = _json(path.with_name("config.json"))
    if theirs.get("model_type") != "clip":
        return None
    vision = theirs.get("vision_config")
    named = vision.get("hidden_act") if isinstance(vision, Mapping) else None
    return named in (None, "quick_gelu")  # transformers' default


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, Mapping) else {}
