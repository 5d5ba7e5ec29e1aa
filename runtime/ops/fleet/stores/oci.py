"""OCI image manifests and the index of an image layout: how a bundle lies in a store.

An image of `ARTIFACT_TYPE` has the signed statement as its config (the empty blob where there is none), `manifest.json`
as its first layer, and a layer for each of the bundle's files, with its path as the title: what `oras pull` fetches is
the bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, Manifest
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.stores.blobs import sha256

IMAGE_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
ARTIFACT_TYPE = "application/vnd.kanoclip.bundle.v1"
INDEX = "index.json"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
MANIFEST_TYPE = "application/vnd.kanoclip.manifest.v1+json"
FILE_TYPE = "application/octet-stream"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
REF_NAME = "org.opencontainers.image.ref.name"
ADDRESS = "kanoclip.bundle.address"
MOST_NAMED = 5
"""Tags that a message names."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """What of an image manifest a pull needs. All of it is only said by the store.

    Attributes:
        envelope: Digest of the signed statement; None where there is none.
        manifest: Digest of `manifest.json`.
        address: Content address, for lists.
        name: The bundle's name, for lists.
        created: When the bundle was exported, for lists.
        size: Bytes of all files, for lists.
    """

    envelope: str | None
    manifest: str
    address: str
    name: str
    created: str
    size: int


def write_image(manifest: Manifest, text: bytes, address: str, envelope: bytes | None) -> bytes:
    """The image manifest of a bundle.

    Args:
        manifest: The bundle's.
        text: The same as it stands in the file.
        address: Its content address.
        envelope: The signed statement; None without one.
    """
    from kanoclip.runtime.ops.fleet.statement import ENVELOPE_TYPE

    config = (EMPTY_TYPE, EMPTY) if envelope is None else (ENVELOPE_TYPE, envelope)
    layers = [_descriptor(MANIFEST_TYPE, sha256(text), len(text), MANIFEST_NAME)]
    layers += [
        _descriptor(FILE_TYPE, f"sha256:{info.sha256}", info.size, name)
        for name, info in sorted(manifest.files.items())
    ]
    image = {
        "schemaVersion": 2,
        "mediaType": IMAGE_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": _descriptor(config[0], sha256(config[1]), len(config[1])),
        "layers": layers,
        "annotations": {TITLE: manifest.name, CREATED: manifest.created, ADDRESS: address},
    }
    return json.dumps(image, indent=2).encode()


_LARGEST = 1 << 50


def read_image(content: bytes) -> Image:
    """Reads an image manifest, which may be anything.

    Raises:
        FleetError: It is none, or not of a bundle.
    """
    image = _object(content, "image manifest")
    if image.get("artifactType") != ARTIFACT_TYPE:
        raise FleetError("it is no KAnoCLIP bundle, but another image")
    try:
        config, layers, notes = image["config"], image["layers"], image["annotations"]
        signed = config["mediaType"] != EMPTY_TYPE
        manifest = next(layer["digest"] for layer in layers if layer["mediaType"] == MANIFEST_TYPE)
        digests = [manifest, config["digest"], notes[ADDRESS]]
        texts = [notes[TITLE], notes[CREATED]]
        sizes = [layer["size"] for layer in layers]
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration, AttributeError):
        raise FleetError("its image manifest is damaged, or of a later version") from None
    if not all(type(one) is int and 0 <= one <= _LARGEST for one in sizes):
        raise FleetError("its image manifest is damaged: a size is none")
    if not all(isinstance(one, str) and _DIGEST.fullmatch(one) for one in digests):
        raise FleetError("its image manifest is damaged: a digest is none")
    if not all(isinstance(one, str) and is_one_line(one) for one in texts):
        raise FleetError("its image manifest is damaged: a name or time is none")
    return Image(config["digest"] if signed else None, manifest, notes[ADDRESS], texts[0], texts[1], sum(sizes))


def read_index(content: bytes) -> dict[str, str]:
    """Tags and digests of image manifests in the index of an image layout.

    Raises:
        FleetError: It is no index.
    """
    entries = _object(content, INDEX).get("manifests")
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        tag = _tag_of(entry)
        digest = None if tag is None else entry.get("digest")
        if tag is not None and isinstance(digest, str) and _DIGEST.fullmatch(digest):
            found[tag] = digest
    return found


def with_tag(index: bytes | None, tag: str, image: bytes) -> bytes:
    """An index in which a tag stands for an image; others' entries stay as they are.

    Raises:
        FleetError: The index at hand is none.
    """
    value = {"schemaVersion": 2, "mediaType": INDEX_TYPE} if index is None else _object(index, "index.json")
    entries = value.get("manifests")
    others = [entry for entry in (entries if isinstance(entries, list) else []) if _tag_of(entry) != tag]
    entry = {
        "mediaType": IMAGE_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "digest": sha256(image),
        "size": len(image),
        "annotations": {REF_NAME: tag},
    }
    return json.dumps(value | {"manifests": [*others, entry]}, indent=2).encode()


def _tag_of(entry: Any) -> str | None:
    """An index's entry's; None for another tool's, without a tag or with anything in its place."""
    notes = entry.get("annotations") if isinstance(entry, dict) else None
    tag = notes.get(REF_NAME) if isinstance(notes, dict) else None
    return tag if isinstance(tag, str) and is_one_line(tag) else None


def _descriptor(kind: str, digest: str, size: int, title: str | None = None) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": kind, "digest": digest, "size": size}
    return descriptor if title is None else descriptor | {"annotations": {TITLE: title}}


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FleetError(f"its {what} is no JSON object: the store is damaged, or something else answers")
    return value


def digest_of(shown: str, index: Mapping[str, str], tag: str) -> str:
    """The digest of a tag's image manifest.

    Args:
        shown: The store's URL, without credentials.
        index: As `read_index` gives it.
        tag: What is wanted.

    Raises:
        FleetError: There is no such tag.
    """
    digest = index.get(tag)
    if digest is None:
        raise absent(shown, tag, index)
    return digest


def tags_of(shown: str, content: bytes | None) -> list[str]:
    """The tags of an image layout's index, in order.

    Args:
        shown: The store's URL, without credentials.
        content: Of the index; None where there is none.

    Raises:
        FleetError: There is none, or it is no index.
    """
    if content is None:
        raise FleetError(f"{shown} holds no {INDEX}: it is no store of bundles, or nothing was pushed yet")
    return sorted(read_index(content))


def absent(shown: str, tag: str, tags: Iterable[str]) -> FleetError:
    """The error for a tag that a store does not have; it names some of those that it has.

    Args:
        shown: The store's URL, without credentials.
        tag: What was wanted.
        tags: What it has. Those that are addresses are not named.
    """
    known = sorted(one for one in tags if not one.startswith("sha256-"))
    if not known:
        return FleetError(f"{shown} has no {tag}: kanoclip-bundle list {shown} shows what it has")
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return FleetError(f"{shown} has no {tag}: it has {', '.join(known[:MOST_NAMED])}{more}")
