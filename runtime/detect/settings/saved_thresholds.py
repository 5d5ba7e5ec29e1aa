"""Thresholds that were chosen while a stream ran, saved so that the next start with the same arguments uses them."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.bundle.store import check_place, store
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.detect.settings.thresholds import decided
from kanoclip.runtime.errors import BundleError, SettingsError, one_line
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.paths import config_path, replace_file


@dataclass(frozen=True)
class Saved:
    """The settings that a start with the same arguments would use now.

    Attributes:
        bundle: With the thresholds that its manifest holds.
        settings: Of file and flags.
        file: The settings file, which need not exist; None where there is none.
    """

    bundle: Bundle
    settings: Settings
    file: Path | None

    @property
    def flags(self) -> Decision:
        """What the flags set, over file and bundle."""
        return self.settings.flags

    def in_file(self, class_name: str) -> bool:
        """Whether the file sets one of a class's thresholds, and so overrides the bundle."""
        of_file = self.settings.common.overridden(self.settings.classes.get(class_name, Decision()))
        return of_file.threshold is not None or of_file.pixel_threshold is not None

    def place(self, class_name: str) -> Path:
        """The file or the bundle's folder that a class's thresholds come from, flags aside."""
        return self.file if self.file is not None and self.in_file(class_name) else self.bundle.root

    def thresholds(self, class_name: str) -> tuple[float, float]:
        """A class's image and pixel threshold."""
        found = decided(self.bundle.manifest.thresholds_of(class_name), self.settings.decision(class_name))
        return found.image, found.pixel


def save(saved: Saved, class_name: str, wanted: Thresholds) -> Path:
    """Writes a class's image and pixel threshold to where the next start finds them.

    If the settings file sets one of the two, they go there, since the file overrides the bundle. Otherwise they go into
    the bundle, or into the file if the bundle cannot be written.

    Args:
        saved: What the next start would use if nothing were written.
        class_name: The class.
        wanted: The thresholds.

    Returns:
        The file or the bundle's folder that holds them.

    Raises:
        SettingsError: A flag overrides any saved threshold, or the file cannot be written.
        BundleError: The bundle cannot be written, and there is no file.
    """
    for flag, set_to, value in (
        ("--threshold", saved.flags.threshold, wanted.image),
        ("--pixel-threshold", saved.flags.pixel_threshold, wanted.pixel),
    ):
        if set_to is not None and set_to != value:
            raise SettingsError(f"{flag} {set_to:g} overrides any saved threshold: start without it, then save")
    if not saved.in_file(class_name):
        try:
            check_place(saved.bundle.root, None)
            return _into_bundle(saved.bundle, class_name, wanted)
        except BundleError:
            if saved.file is None:
                raise
    assert saved.file is not None  # it sets something
    of_class = saved.settings.classes.get(class_name, Decision())
    one = len(saved.bundle.manifest.classes) == 1
    now = saved.thresholds(class_name)
    write_settings(
        saved.file,
        {
            (_place(getattr(of_class, key), class_name, one), key): value
            for key, value, before in (
                ("threshold", wanted.image, now[0]),
                ("pixel_threshold", wanted.pixel, now[1]),
            )
            if value != before
        },
    )
    return saved.file


def _place(set_for_class: float | None, class_name: str, one: bool) -> Place:
    """The table for a key: a bundle of one class needs none for the class."""
    return ("decision",) if one and set_for_class is None else ("class", class_name)


def _into_bundle(bundle: Bundle, class_name: str, wanted: Thresholds) -> Path:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    before = bundle.manifest.thresholds_of(class_name)
    thresholds = replace(
        before,
        image=wanted.image,
        pixel=wanted.pixel,
        origin=f"chosen while a stream ran, {now}",
        roi=None,
    )
    whose = None if len(bundle.manifest.classes) == 1 else class_name
    return store(bundle, None, whose, thresholds)


def own_settings(bundle: Path, sources: Sequence[str]) -> Path | None:
    """The user's settings file, whether it exists or not; None where there is no bundle or no home.

    `kanoclip/NAME-BUNDLE-SOURCES.toml` in `XDG_CONFIG_HOME` or else `~/.config`, with 8 digits of two digests. Of a
    bundle that cannot be written the first one is its content's, thresholds and memories included: what was chosen for
    them means nothing for others. One that can be written holds its thresholds itself, and the file has the region of
    interest, which stays when they change: its digest is that of the graph and the bundle's place. The sources are part
    of it in both cases: what was chosen for one camera is not for another.

    Args:
        bundle: The bundle's folder.
        sources: What messages call the sources, in any order.
    """
    try:
        content = read_small(bundle / MANIFEST_NAME).decode()
        manifest = read_manifest(content)
        folder = config_path()
    except (OSError, UnicodeDecodeError, BundleError):  # no bundle, which is reported elsewhere, or no home
        return None
    try:
        check_place(bundle, None)
        content = f"{Bundle(bundle, manifest).graph_digest()} {bundle.resolve()}"
    except BundleError:
        pass
    return folder / f"{_plain(manifest.name)}-{_digits(content)}-{_digits(json.dumps(sorted(sources)))}.toml"


def not_used(file: Path) -> str:
    """What to log of settings that were saved for the same bundle's name and are not this run's; empty for nothing.

    Args:
        file: This run's own, as `own_settings` returned it.
    """
    name = file.stem.rpartition("-")[0].rpartition("-")[0]
    others = re.compile(rf"{re.escape(name)}(?:-[0-9a-f]{{8}})+\.toml")
    try:
        found = sorted(one.name for one in file.parent.iterdir() if others.fullmatch(one.name))
    except OSError:
        return ""
    if not found or file.name in found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{file.parent / found[-1]}{more}: saved for another content of {name} or other sources, and not used"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Place = tuple[str, ...]
"""A table's names, such as `("class", "bottle")`."""


def write_settings(path: Path, values: Mapping[tuple[Place, str], float | str]) -> None:
    """Sets keys in a settings file; creates the file if there is none.

    Args:
        path: The file; if it is a link, its target is written.
        values: By table and key.

    Raises:
        SettingsError: tomlkit is not installed, or the file is invalid or cannot be written; then it stays as it was.
    """
    try:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError
    except ModuleNotFoundError:
        raise SettingsError(
            "tomlkit is not installed, which is needed to change a settings file: pip install 'kanoclip-edge[page]'"
        ) from None
    target = path.resolve()
    try:
        text = read_small(target).decode("utf-8-sig") if target.exists() else ""
        expected: dict[str, Any] = copy.deepcopy(tomllib.loads(text))
        document = tomlkit.parse(text)
        for (place, key), value in values.items():
            table: Any = document
            meant = expected
            for depth, name in enumerate(place):
                if name not in table:
                    # A table that only holds others needs no line of its own.
                    table[name] = tomlkit.table(is_super_table=depth < len(place) - 1)
                table, meant = table[name], meant.setdefault(name, {})
            table[key] = meant[key] = value
        written = tomlkit.dumps(document)
        if tomllib.loads(written) != expected:
            raise ValueError("nothing can be added to the way it is written: set the thresholds by hand")
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, written.encode())
    except OSError as error:
        raise SettingsError(f"{path} cannot be written ({error.strerror or error})") from error
    except (ValueError, TOMLKitError) as error:
        raise SettingsError(f"{path} cannot be changed ({one_line(error)})") from error
