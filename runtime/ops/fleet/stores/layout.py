"""A store that is a folder in the layout of OCI images: a disk, a share, a bucket, whatever fsspec knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kanoclip.runtime.errors import FleetError, KanoclipError, one_line
from kanoclip.runtime.ops.fleet.stores.blobs import BLOCK, IMAGE_LIMIT, BrokenOffError, sha256, small_blob
from kanoclip.runtime.ops.fleet.stores.oci import INDEX, digest_of, read_index, tags_of, with_tag
from kanoclip.runtime.system.net import ESCAPE_HINT, has_secret, redact_url

LAYOUT = json.dumps({"imageLayoutVersion": "1.0.0"}).encode()


class FolderLayout:
    """A folder of `index.json` and `blobs/sha256/`; see `Store`.

    Attributes:
        folder: Where it is on this machine; None where it is elsewhere.
    """

    def __init__(self, url: str) -> None:
        """Opens the file system; nothing is read.

        Raises:
            FleetError: fsspec, or what it needs for this URL, is not installed, or the URL is none.
        """
        self.shown = redact_url(url)
        try:
            from fsspec import available_protocols
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem
        except ImportError:
            raise FleetError(f"{self.shown} needs fsspec: pip install 'kanoclip-edge[fleet]'") from None
        scheme, mark, _ = url.partition("://")
        if mark and scheme not in available_protocols():
            raise FleetError(f"{self.shown} cannot be used: fsspec has no file system called {scheme}")
        try:
            self._fs: Any
            self._fs, root = url_to_fs(url)
        except ValueError as error:  # whose words quote what was taken for the port, which may be of a password
            why = ESCAPE_HINT if has_secret(url) else one_line(error)
            raise FleetError(f"{self.shown} cannot be used: {why}") from None
        except Exception as error:  # each file system has its own; an absent one is an ImportError, with the remedy
            raise FleetError(f"{self.shown} cannot be used: {one_line(error)}") from error
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self.folder = Path(self._root) if self._local else None

    def image(self, tag: str) -> bytes:
        """See `Store`."""
        digest = digest_of(self.shown, read_index(self._index() or b"{}"), tag)
        return small_blob(self, digest, IMAGE_LIMIT, "image manifest")

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """See `Store`."""
        with self._words(f"cannot read {digest}"), self._fs.open(self._blob(digest), "rb", block_size=BLOCK) as file:
            file.seek(start)
            while block := file.read(BLOCK):
                yield block

    def tags(self) -> list[str]:
        """See `Store`."""
        return tags_of(self.shown, self._index())

    def has(self, digest: str, size: int) -> bool:
        """See `Store`."""
        with self._words("cannot be asked"):
            try:
                return bool(self._fs.info(self._blob(digest))["size"] == size)
            except FileNotFoundError:
                return False

    def put(self, digest: str, size: int, content: BinaryIO) -> None:
        """See `Store`."""
        with self._words("cannot be written"), self._written(self._blob(digest)) as file:
            shutil.copyfileobj(content, file, BLOCK)

    def put_image(self, tag: str, image: bytes) -> None:
        """See `Store`; two that push at the same time may lose one of two tags, which is looked for and reported."""
        with self._words("cannot be written"):
            for path, content in ((self._blob(sha256(image)), image), (f"{self._root}/oci-layout", LAYOUT)):
                with self._written(path) as file:
                    file.write(content)
            index = with_tag(self._index(), tag, image)
            with self._written(f"{self._root}/{INDEX}") as file:
                file.write(index)
            if read_index(self._index() or b"{}").get(tag) != sha256(image):
                raise FleetError(f"{self.shown}: another push came between: push again")

    def _index(self) -> bytes | None:
        with self._words("cannot be read"):
            self._fs.invalidate_cache()
            try:
                with self._fs.open(f"{self._root}/{INDEX}", "rb") as file:
                    return bytes(file.read(IMAGE_LIMIT))
            except FileNotFoundError:
                return None

    def _blob(self, digest: str) -> str:
        return f"{self._root}/blobs/{digest.replace(':', '/')}"

    @contextmanager
    def _written(self, path: str) -> Iterator[Any]:
        """A file that is whole or not there: object stores do so by themselves, on a disk it is renamed in the end."""
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        beside = f"{path}.part" if self._local else path
        with self._fs.open(beside, "wb") as file:
            yield file
        if self._local:
            self._fs.mv(beside, path)

    @contextmanager
    def _words(self, what: str) -> Iterator[None]:
        try:
            yield
        except (KanoclipError, GeneratorExit):
            raise
        except FileNotFoundError as error:
            raise FleetError(f"{self.shown} {what}: it is not there") from error
        except (ConnectionError, TimeoutError) as error:
            raise BrokenOffError(f"{self.shown} {what} ({one_line(error)})") from error
        except Exception as error:  # each file system has its own
            raise FleetError(f"{self.shown} {what} ({type(error).__name__}: {one_line(error)})") from error
