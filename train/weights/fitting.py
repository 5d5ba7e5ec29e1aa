"""Puts a file's tensors into a model, or says what they are of and which backbone would fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import open_clip
import torch
from torch import Tensor, nn

from kanoclip.train.weights.formats.archive import ArchiveError, TensorError
from kanoclip.train.weights.formats.layouts import State, for_custom_text, for_plain_text

_POSITIONS = ("visual.positional_embedding", "visual.trunk.pos_embed")
_PATCHES = ("visual.conv1.weight", "visual.trunk.patch_embed.proj.weight")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""What weights may be stored as: numbers that mean the same without a scale beside them."""
_SCALARS = ("logit_scale", "logit_bias")


class Candidate(Protocol):
    """A backbone that a file may be of."""

    @property
    def name(self) -> str:
        """For --backbone."""
        ...

    @property
    def quick_gelu(self) -> bool:
        """Its activation."""
        ...

    def architecture(self) -> dict[str, Any]:
        """open_clip's configuration."""
        ...


def fill(model: nn.Module, state: State) -> None:
    """Loads a state dict under open_clip's names; nothing is resized, and nothing may be missing or left over.

    Raises:
        ArchiveError: The tensors are of another model.
        TensorError: They are of this one, but not all of them are finite floating-point numbers.
    """
    fitted = named_for(model, state)
    wanted = model.state_dict()
    if difference := _difference(wanted, fitted):
        raise ArchiveError(difference)
    for name, tensor in fitted.items():
        if wanted[name].is_floating_point() and tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise TensorError(f"{name} is {kind}, without a scale: take the weights in float32, float16 or bfloat16")
        if not bool(torch.isfinite(tensor).all()):
            raise TensorError(f"{name} holds NaN or infinity: the training run that wrote it has failed")
    model.load_state_dict(fitted, strict=True)


def named_for(model: nn.Module, state: State) -> State:
    """The tensors under the names of a model of open_clip's, whose text tower may be a module of its own."""
    custom = isinstance(model, open_clip.CustomTextCLIP)
    named = for_custom_text(state) if custom else for_plain_text(state)
    wanted = model.state_dict()
    for name in _SCALARS:
        if name in named and name in wanted and named[name].numel() == 1:
            named[name] = named[name].reshape(wanted[name].shape)
    return named


def advice(
    state: State,
    backbone: Candidate,
    others: Sequence[Candidate],
    build: Callable[[str], nn.Module],
    quick_gelu: bool | None,
) -> str:
    """What the tensors are of, and the backbone that would take them.

    Args:
        state: Under open_clip's names.
        backbone: The one that they do not fit.
        others: The registry.
        build: A model of a registry's name; run on the meta device.
        quick_gelu: Their activation, where it is known.
    """
    fits: dict[str, bool] = {}
    timm = any(name.startswith("visual.trunk.") for name in state)
    fitting = []
    for one in others:
        shape = one.architecture()
        key = json.dumps({**shape, "quick_gelu": False}, sort_keys=True)
        wanted = quick_gelu is None or one.quick_gelu == quick_gelu
        if one.name == backbone.name or not wanted or timm != ("timm_model_name" in shape["vision_cfg"]):
            continue
        if key not in fits:  # seconds for a large one, which several lines of weights share
            with torch.device("meta"):
                model = build(one.name)
            fits[key] = _difference(model.state_dict(), named_for(model, state)) is None
        if fits[key]:
            fitting.append(one.name)
    what = describe(state)
    if what is None:
        return "it is no CLIP with a vision transformer: see `kanoclip-export --list-backbones`"
    if fitting:
        return f"{what}: --backbone {' or '.join(fitting)} has that shape"
    with torch.device("meta"):
        own = describe(build(backbone.name).state_dict())
    if what == own and quick_gelu in (None, backbone.quick_gelu):
        return f"{what}, as {backbone.name} does, but not all of it or more: save the whole model's state_dict again"
    return f"{what}, which no backbone here has: see `kanoclip-export --list-backbones`"


def describe(state: State) -> str | None:
    """A tower's shape in words, from its tensors alone; None where there is no vision transformer."""
    patch = next((state[name] for name in _PATCHES if name in state), None)
    positions = next((state[name] for name in _POSITIONS if name in state), None)
    if patch is None or positions is None or patch.dim() != 4 or positions.dim() < 2:
        return None
    numbers = {name.split(".")[3] for name in state if name.startswith(("visual.transformer.resblocks.",))}
    numbers |= {name.split(".")[3] for name in state if name.startswith("visual.trunk.blocks.")}
    cells = positions.shape[-2]
    side = round(cells**0.5)
    grid = next((s for s in (side, side - 1) if s * s in (cells, cells - 1)), None)
    seen = f", {grid}x{grid} patches ({grid * patch.shape[-1]} px)" if grid else f", {cells} positions"
    return f"it holds a ViT of {len(numbers)} blocks of width {patch.shape[0]}, patch {patch.shape[-1]}{seen}"


def _difference(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first thing that does not fit, and how many more; None where everything does."""
    shapes = [name for name in wanted if name in found and found[name].shape != wanted[name].shape]
    missing, unknown = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
    if not (shapes or missing or unknown):
        return None
    grids = [name for name in shapes if name in _POSITIONS and found[name].dim() == wanted[name].dim()]
    if shapes == grids and not missing and not unknown:
        name = shapes[0]
        return f"its positions are for another grid, {found[name].shape[-2]} rows in place of {wanted[name].shape[-2]}"
    if shapes:
        name = shapes[0]
        first = f"{name} has shape {list(found[name].shape)} in place of {list(wanted[name].shape)}"
    else:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not of this model"
    more = len(shapes) + len(missing) + len(unknown) - 1
    return f"{first}, and {more} more" if more else first
