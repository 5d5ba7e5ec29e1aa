"""The backbones as a table, and whether a bundle may be made of one by its licence."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import REGISTRY, UNSUITED, Backbone, empty_clip
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.weights.load import Weights
from kanoclip.train.weights.published import NONE

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Listed:
    """A line of the table.

    Attributes:
        name: For --backbone.
        about: Who made it, of what.
        licence: Of its published weights.
        research_only: Whether an export wants `--accept-licence`.
        size: Side of the images that its positions were learned for, in pixels.
        image_weights: Parameters of the image tower, which ship.
        text_weights: Of the text tower, which does not.
        flops: Of the image tower as it is, for one image; multiply-adds counted as two.
        weights: Where they come from: `packaged`, `download`, `--weights FILE` or `seeded`.
    """

    name: str
    about: str
    licence: str
    research_only: bool
    size: int
    image_weights: int
    text_weights: int
    flops: int
    weights: str


def list_backbones() -> list[Listed]:
    """All backbones, counted on towers without values."""
    return [_listed(backbone) for backbone in REGISTRY.values()]


def unsuited() -> dict[str, str]:
    """Towers that people ask for and that are refused, several in a line, with the reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in UNSUITED.items():
        reasons.setdefault(reason, []).append(name)
    return {", ".join(names): reason for reason, names in reasons.items()}


def check_licence(backbone: Backbone, weights: Weights | None, accepted: str | None) -> str | None:
    """Whether a bundle may be made of weights.

    Args:
        backbone: Entry of the registry.
        weights: As they were loaded; None before that, for the published ones.
        accepted: The name that `--accept-licence` gave.

    Returns:
        A warning, or None where nothing is to be said.

    Raises:
        CheckpointError: They are for research only, and that was not accepted.
    """
    if weights is not None and not weights.trained:
        return None
    terms = backbone.licence
    if terms.research_only:
        if accepted != terms.name:
            raise CheckpointError(
                f"the weights of {backbone.name} are for research only ({terms.name}: {terms.note}): "
                f"--accept-licence {terms.name} exports them all the same"
            )
        return f"{backbone.name}: {terms.name}, for research only; the manifest says so"
    if accepted is not None and accepted != terms.name:
        raise CheckpointError(f"--accept-licence {accepted}: the weights of {backbone.name} are {terms.name}")
    if weights is not None and weights.licence is None:
        return (
            f"the licence of {weights.origin} is not known, its sha256 being none that is known here; the published "
            f"weights of {backbone.name} are {terms.name}"
        )
    return None


def licence_title(backbone: Backbone, weights: Weights) -> str | None:
    """For the manifest: None for seeded weights, which have no licence."""
    if not weights.trained:
        return None
    terms = backbone.licence
    if weights.licence is None and not terms.research_only:
        return UNKNOWN
    return f"{terms.name} (research only)" if terms.research_only else terms.name


def _listed(backbone: Backbone) -> Listed:
    with torch.device("meta"):
        clip = empty_clip(backbone).requires_grad_(False)
        height, width = backbone.native_size
        pixels = torch.zeros(1, 3, height, width)
        stem = backbone.packaged is not None  # open_clip's own forward does not know it
        tower = ClipVV(clip.visual, (height, width), vv=False) if stem else clip.visual
    image = sum(parameter.numel() for parameter in clip.visual.parameters())
    whole = sum(parameter.numel() for parameter in clip.parameters())
    counter, chatter = FlopCounterMode(display=False), logging.getLogger("torch.utils.flop_counter")
    chatter.setLevel(logging.ERROR)
    with counter:
        tower(pixels)
    source = "packaged" if backbone.packaged else "download" if backbone.tag else "--weights FILE"
    return Listed(
        backbone.name,
        backbone.about,
        backbone.licence.name,
        backbone.licence.research_only,
        height,
        image,
        whole - image,
        counter.get_total_flops(),
        "seeded" if backbone.licence is NONE else source,
    )
