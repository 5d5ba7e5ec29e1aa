"""Puts thresholds into a bundle's manifest, in place or in a copy of the bundle; and other tiles."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest import IN_GRAPH, MANIFEST_NAME, Manifest, Thresholds, TileGrid
from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.system.paths import replace_file


def check_place(bundle: Path, output: Path | None) -> None:
    """Refuses a place where the thresholds could not be written, before frames are scored for them.

    Args:
        bundle: The bundle's folder.
        output: Folder for a copy; None for the bundle itself.

    Raises:
        BundleError: It travels with the package, cannot be written to, or the copy's folder is there already.
    """
    if output is None:
        # An update of the package would undo it, and others use the same files.
        if bundle.resolve().is_relative_to(Path(str(resources.files("kanoclip.runtime.bundle.shipped"))).resolve()):
            raise BundleError(f"{bundle} belongs to the package: name a folder for a copy with --output NAME.kanoclip")
        if not os.access(bundle, os.W_OK):
            raise BundleError(f"{bundle} cannot be written to: name a folder for a copy with --output NAME.kanoclip")
        return
    if output.exists() or output.is_symlink():
        raise BundleError(f"{output} is there already: name another folder, or calibrate it in place")
    if not os.access(output.absolute().parent, os.W_OK):
        raise BundleError(f"{output} cannot be made: {output.absolute().parent} is no folder that can be written to")


def store(bundle: Bundle, output: Path | None, class_name: str | None, thresholds: Thresholds) -> Path:
    """Writes the thresholds, whole or not at all; those before stay in the manifest's provenance.

    Args:
        bundle: Which.
        output: As `check_place` has it.
        class_name: Whose they are; None for all classes.
        thresholds: The new ones.

    Returns:
        The folder of the bundle that has them.

    Raises:
        BundleError: It cannot be written.
    """
    text = changed(bundle.manifest, class_name, thresholds).to_json().encode()
    try:
        if output is None:
            replace_file(bundle.root / MANIFEST_NAME, text)
            return bundle.root
        # Beside its place and then renamed: a copy that was cut short never looks like a bundle.
        beside = output.with_name(f"{output.name}.{os.getpid()}.part")
        try:
            for name in bundle.manifest.files:
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.root / name, beside / name)
            (beside / MANIFEST_NAME).write_bytes(text)
            beside.rename(output)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
    except OSError as error:
        where = output or bundle.root
        raise BundleError(f"{where} cannot be written ({error.strerror}); nothing was changed") from error
    return output


def changed(manifest: Manifest, class_name: str | None, thresholds: Thresholds) -> Manifest:
    """The manifest with new thresholds, and with a note of the old ones under the time in UTC."""
    before = manifest.thresholds if class_name is None else manifest.thresholds_of(class_name)
    whose = "" if class_name is None else f" of {class_name}"
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    note = f"image {before.image!r}, pixel {before.pixel!r}, min_area {before.min_area} ({before.origin})"
    provenance = manifest.provenance | {f"thresholds{whose} until {now}": note}
    if class_name is None:
        return replace(manifest, thresholds=thresholds, provenance=provenance)
    classes = manifest.class_thresholds | {class_name: thresholds}
    return replace(manifest, class_thresholds=classes, provenance=provenance)


def with_tiles(bundle: Bundle, grid: TileGrid | None) -> Manifest:
    """The bundle's manifest with other tiles: the same graph and engines serve any, for each tile has its size.

    A graph of a fixed batch runs best with as many tiles as that; thresholds hold for the tiles that they were found
    with, so whoever changes these sets the others anew.

    Args:
        bundle: Which.
        grid: The tiles; None, or a single one, for the whole frame.

    Raises:
        BundleError: Its graph resizes whole frames, or it has reference memories, which were learned of other tiles.
    """
    manifest = bundle.manifest
    tiles = None if grid is None or grid.count == 1 else grid
    if tiles == manifest.tiles:
        return manifest
    if manifest.preprocessing.resize == IN_GRAPH:
        raise BundleError(f"{bundle.root} resizes whole frames in its graph: export it without --camera-size for tiles")
    if manifest.references:
        names = ", ".join(manifest.references)
        raise BundleError(
            f"{bundle.root} has memories learned of other tiles ({names}): keep its tiles, or begin with a bundle "
            "that has none"
        )
    return replace(manifest, tiles=tiles)
