"""Where a bundle lies: `URL`, `URL:TAG` or `URL@sha256:...`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kanoclip.runtime.errors import FleetError

DEFAULT_TAG = "latest"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TAIL = re.compile(r"(?P<url>.*/[^/]*?)(?:@(?P<address>sha256:[^/@]*)|:(?P<tag>[^/:@]*))?", re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """A store and which bundle of it.

    Attributes:
        url: The store's, without tag or address.
        tag: A name that moves from bundle to bundle; None where `address` says which.
        address: A content address, `sha256:` and 64 digits.
    """

    url: str
    tag: str | None = DEFAULT_TAG
    address: str | None = None

    @property
    def in_store(self) -> str:
        """What the store calls it: the tag, or the address as a tag can hold it."""
        return self.tag if self.address is None and self.tag is not None else address_tag(self.address or "")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads a reference; a colon counts as a tag's behind the last slash only.

        Raises:
            FleetError: The tag or the address is none.
        """
        found = _TAIL.fullmatch(text)
        # `s3://bucket` has its last slash in front of the host, where a colon means a port.
        if found is None or re.fullmatch(r"[a-z0-9+]+:/?", found["url"].rpartition("/")[0]):
            return cls(text)
        url, address, tag = found["url"], found["address"], found["tag"]
        if address is not None:
            if not re.fullmatch("sha256:[0-9a-f]{64}", address):
                raise FleetError(f"{address!r} is no content address: it is sha256: and 64 digits")
            return cls(url, None, address)
        return cls(url) if tag is None else cls(url, check_tag(tag))


def check_tag(tag: str) -> str:
    """The tag, if it is one.

    Raises:
        FleetError: It is none.
    """
    if not _TAG.fullmatch(tag):
        raise FleetError(f"{tag!r} is no tag: use up to 128 letters, digits, '_', '-' and '.'")
    if is_address_tag(tag):
        raise FleetError(f"{tag} is the form of a content address: use URL@sha256:... to name one")
    return tag


def address_tag(address: str) -> str:
    """A content address as a tag, `sha256-...`: every bundle is stored under this, too."""
    return address.replace(":", "-")


def is_address_tag(tag: str) -> bool:
    """Whether a tag of a store stands for a content address."""
    return re.fullmatch("sha256-[0-9a-f]{64}", tag) is not None
