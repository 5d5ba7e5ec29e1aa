"""The thresholds that an exported bundle starts with, until good images of the part set its own."""

from __future__ import annotations

from dataclasses import replace

from kanoclip.runtime.bundle.bundle import shipped_bundle
from kanoclip.runtime.bundle.manifest.parts import NOT_CALIBRATED, Thresholds
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.errors import BundleError

DEFAULT = Thresholds(image=0.5, pixel=0.5, min_area=0, origin=NOT_CALIBRATED)


def first_thresholds(checkpoint_sha256: str | None, classes: tuple[str, ...], tiles: TileGrid | None) -> Thresholds:
    """Those of the shipped bundle where the same model scores whole frames, else `DEFAULT`.

    Another class's words change scores little (docs/nano.md), so the shipped thresholds are a start for them too. The
    score of a frame in tiles is the highest of many: no threshold for whole frames fits it.

    Args:
        checkpoint_sha256: Of the model that is exported.
        classes: What it is exported with.
        tiles: How frames are cut; None for whole ones.
    """
    try:
        path = shipped_bundle() / MANIFEST_NAME
        shipped = read_manifest(path.read_text(encoding="utf-8"))
    except (OSError, BundleError):  # a package without one, as while the shipped bundle itself is made
        return DEFAULT
    if tiles is not None or checkpoint_sha256 is None or shipped.model.checkpoint_sha256 != checkpoint_sha256:
        return DEFAULT
    own = shipped.thresholds
    same = classes == shipped.classes
    of = "" if same else f" and of the class {', '.join(shipped.classes)}"
    return replace(own, origin=f"{own.origin}; those of the shipped bundle{of}")
