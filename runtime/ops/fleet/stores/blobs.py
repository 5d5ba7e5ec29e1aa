"""Blobs: what is the same in every store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

from kanoclip.runtime.errors import FleetError

IMAGE_LIMIT = 4 << 20
"""Bytes of an image manifest; registries take no larger ones."""
BLOCK = 1 << 20


class BrokenOffError(FleetError):
    """A transfer that broke off: the rest may be asked for."""


class Blobs(Protocol):
    """The part of a store that gives blobs out; see `kanoclip.runtime.ops.fleet.stores.store.Store`."""

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """A blob's content in blocks, which nobody has checked."""
        ...


def small_blob(store: Blobs, digest: str, limit: int, what: str) -> bytes:
    """A blob that fits into memory, checked.

    Args:
        store: Where it is.
        digest: `sha256:` and 64 digits.
        limit: Most bytes that it may have.
        what: It is, for the message.

    Raises:
        FleetError: It cannot be read, is larger, or is not what its digest says.
    """
    content = bytearray()
    for block in store.blob(digest):
        content += block
        if len(content) > limit:
            raise FleetError(f"its {what} is over {limit >> 10} KiB: it is none")
    if sha256(content) != digest:
        raise FleetError(f"its {what} was damaged or changed in the store")
    return bytes(content)


def sha256(content: bytes | bytearray) -> str:
    """`sha256:` and the digest."""
    return "sha256:" + hashlib.sha256(content).hexdigest()
