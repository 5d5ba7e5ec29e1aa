"""Which descriptors a graph gives: a reference memory of one kind cannot be used with another."""

from __future__ import annotations

import hashlib

from kanoclip.export.checks import QUANTISED
from kanoclip.runtime.bundle.manifest.signature import DescriptorInfo
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, ClipVV

_STEM = ("stem.trunk.", "stem.descriptor_")


def describe_tower(tower: ClipVV, precision: str) -> DescriptorInfo:
    """Grid, channels and digest of a tower's descriptors.

    The digest covers the weights that decide them, the size of the image, and whether they are computed in 8 bits:
    half precision changes a cosine by a thousandth, a quantised stem by hundredths.

    Args:
        tower: In float32.
        precision: Of the graph.
    """
    digest = hashlib.sha256()
    digest.update(f"{tower.size} {precision if precision in QUANTISED else 'float'}".encode())
    if tower.normalisation != CLIP_PIXELS:
        digest.update(repr(tower.normalisation).encode())
    for name, tensor in sorted(tower.state_dict(keep_vars=False).items()):
        if _decides(tower, name):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return DescriptorInfo(tower.descriptor_grid, tower.descriptor_channels, digest.hexdigest())


def _decides(tower: ClipVV, name: str) -> bool:
    """Whether the descriptors depend on a tensor of the tower."""
    if tower.stem is not None:
        return name.startswith(_STEM)
    if name.startswith("blocks."):
        return int(name.split(".")[1]) < tower.taps[2]
    return not name.startswith(("final.", "ln_post.", "pool.", "proj"))
