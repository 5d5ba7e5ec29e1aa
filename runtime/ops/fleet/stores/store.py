"""What push and pull need of a place where bundles are stored, and which one a URL means.

Every store holds OCI image manifests and blobs, so that `oras` and other tools of that world read them too: a registry
by its API, a folder (of any file system that fsspec knows, or behind a web server) in the layout of OCI images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol


class Store(Protocol):
    """A place where bundles are stored.

    Attributes:
        shown: Its URL, without credentials.
    """

    shown: str

    def image(self, tag: str) -> bytes:
        """The image manifest that a tag stands for.

        Raises:
            FleetError: There is no such tag, or the store cannot be read.
        """
        ...

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """A blob's content in blocks, which nobody has checked.

        Args:
            digest: `sha256:` and 64 digits.
            start: How many bytes to leave out.

        Raises:
            BrokenOffError: The connection was lost.
            FleetError: There is no such blob, or the store cannot be read.
        """
        ...

    def tags(self) -> list[str]:
        """All tags.

        Raises:
            FleetError: The store cannot be read.
        """
        ...

    def has(self, digest: str, size: int) -> bool:
        """Whether it holds a blob in full length.

        Raises:
            FleetError: The store cannot be asked.
        """
        ...

    def put(self, digest: str, size: int, content: BinaryIO) -> None:
        """Stores a blob.

        Raises:
            FleetError: It cannot be written.
        """
        ...

    def put_image(self, tag: str, image: bytes) -> None:
        """Stores an image manifest under a tag, whose blobs are there.

        Raises:
            FleetError: It cannot be written.
        """
        ...


def open_store(url: str) -> Store:
    """The store that a URL means; whether it is there shows when it is used.

    Args:
        url: `oci://HOST/REPOSITORY` (`oci+http://` without TLS), `http(s)://...` (to pull only), a folder, or any
            other URL that fsspec knows.

    Raises:
        FleetError: The URL is none, or what it needs is not installed.
    """
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("oci", "oci+http"):
        from kanoclip.runtime.ops.fleet.stores.registry import Registry

        return Registry(url)
    if scheme in ("http", "https"):
        from kanoclip.runtime.ops.fleet.stores.web import WebLayout

        return WebLayout(url)
    from kanoclip.runtime.ops.fleet.stores.layout import FolderLayout

    return FolderLayout(url)
