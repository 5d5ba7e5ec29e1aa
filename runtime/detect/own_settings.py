"""Settings that a user keeps for a bundle that cannot be written to, such as the one inside of the package."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest import MANIFEST_NAME, Manifest
from kanoclip.runtime.bundle.store import check_place
from kanoclip.runtime.errors import BundleError


def own_settings(bundle: Path) -> Path | None:
    """Where they are, whether the file exists or not; None for a bundle that keeps its thresholds itself.

    `kanoclip/NAME-DIGEST.toml` in `XDG_CONFIG_HOME` or else `~/.config`. The digest is the graph's: a threshold means
    nothing for another one.

    Args:
        bundle: The bundle's folder.
    """
    try:
        check_place(bundle, None)
        return None
    except BundleError:
        pass
    try:
        manifest = Manifest.from_json((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
        given = os.environ.get("XDG_CONFIG_HOME")
        home = Path(given) if given else Path.home() / ".config"
    except (OSError, UnicodeDecodeError, BundleError, RuntimeError):  # no bundle, which is told elsewhere, or no home
        return None
    name = re.sub(r"[^A-Za-z0-9._-]", "_", manifest.name)
    return home / "kanoclip" / f"{name}-{Bundle(bundle, manifest).graph_digest()[:8]}.toml"
