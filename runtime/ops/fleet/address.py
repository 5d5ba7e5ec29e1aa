"""A bundle's content address: one digest that stands for every byte of it."""

from __future__ import annotations

import hashlib
import json
import re

from kanoclip.runtime.bundle.json_fields import DOCUMENT, parse_object
from kanoclip.runtime.errors import BundleError

ADDRESS = re.compile(r"sha256:[0-9a-f]{64}")
SHORT = 19
"""Characters of an address that are enough to tell bundles apart: `sha256:` and 12 digits."""


def content_address(manifest: bytes) -> str:
    """`sha256:` and the digest of a manifest in canonical form: keys sorted, no blanks, ASCII.

    The manifest lists size and sha256 of every file, engines included, so that the address changes with any byte of the
    bundle; how the JSON is laid out does not matter. Thresholds are a part of it: a bundle that was calibrated again is
    another bundle.

    Args:
        manifest: Content of `manifest.json`.

    Raises:
        BundleError: It is no JSON object in UTF-8.
    """
    try:
        value = parse_object(manifest.decode())
    except UnicodeDecodeError as error:
        raise BundleError(f"{DOCUMENT} is not UTF-8: copy or export the bundle again") from error
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode("ascii")).hexdigest()


def short(address: str) -> str:
    """An address for people."""
    return address[:SHORT]
