"""Puts a bundle into a store."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import timedelta

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.engines.base import Report
from kanoclip.runtime.errors import BundleError, KanoclipError
from kanoclip.runtime.ops.fleet.address import content_address
from kanoclip.runtime.ops.fleet.keys import SigningKey
from kanoclip.runtime.ops.fleet.reference import address_tag
from kanoclip.runtime.ops.fleet.statement import Statement, now, sign
from kanoclip.runtime.ops.fleet.stores.blobs import sha256
from kanoclip.runtime.ops.fleet.stores.oci import EMPTY, write_image
from kanoclip.runtime.ops.fleet.stores.store import Store


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        address: The bundle's content address.
        sent: Bytes that went to the store.
        there: Bytes that were there already.
    """

    address: str
    sent: int
    there: int


def push(
    bundle: Bundle, store: Store, tag: str, key: SigningKey | None, report: Report, valid_days: int | None = None
) -> Pushed:
    """Puts a bundle into a store, under its content address and a tag.

    The tag comes last: it never stands for what is not whole. Files that the store has already are not sent again.

    Args:
        bundle: Opened, and so verified.
        store: Where to.
        tag: Which name it has there from now on.
        key: Signs both; without one, a box takes the bundle only with --unsigned.
        report: Called with the progress of the files.
        valid_days: How long the signature is taken; None for ever.

    Raises:
        FleetError: The store cannot be written.
        BundleError: A file of the bundle went away meanwhile.
    """
    manifest = bundle.manifest
    try:
        text = (bundle.root / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise BundleError(f"{bundle.root} cannot be read ({error.strerror}): copy the bundle again") from error
    address, signed_at = content_address(text), now()
    expires_at = None if valid_days is None else now(timedelta(days=valid_days))
    total = sum(info.size for info in manifest.files.values()) or 1
    sent = done = 0
    for name, info in manifest.files.items():
        report(f"pushing {name}", done / total)
        if not store.has(f"sha256:{info.sha256}", info.size):
            try:
                with (bundle.root / name).open("rb") as file:
                    store.put(f"sha256:{info.sha256}", info.size, file)
            except KanoclipError:
                raise
            except OSError as error:
                raise BundleError(f"{bundle.root}: {name} cannot be read ({error.strerror})") from error
            sent += info.size
        done += info.size
    _put_small(store, text)
    for name in (address_tag(address), tag):
        envelope = None
        if key is not None:
            of_tag = None if name == address_tag(address) else tag
            envelope = sign(Statement(address, manifest.name, of_tag, signed_at, expires_at), key)
        _put_small(store, EMPTY if envelope is None else envelope)
        store.put_image(name, write_image(manifest, text, address, envelope))
    return Pushed(address, sent, total - sent)


def _put_small(store: Store, content: bytes) -> None:
    digest = sha256(content)
    if not store.has(digest, len(content)):
        store.put(digest, len(content), io.BytesIO(content))
