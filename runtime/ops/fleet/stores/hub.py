"""Hugging Face's hub: one file of a repository, checked, and a repository as a store of bundles.

huggingface_hub does the transfers and keeps the cache. What it leaves to be done: a file is what its hash says before
anyone reads it, the cache keeps no half or false one, errors are one line, and nothing is sent that was not asked for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.errors import FleetError, KanoclipError, one_line
from kanoclip.runtime.ops.fleet.stores.blobs import BLOCK, IMAGE_LIMIT, sha256, small_blob
from kanoclip.runtime.ops.fleet.stores.layout import LAYOUT
from kanoclip.runtime.ops.fleet.stores.oci import INDEX, digest_of, read_index, tags_of, with_tag

SCHEME = "hf://"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def open_library() -> Any:
    """huggingface_hub, its telemetry turned off before the import.

    Raises:
        FleetError: It is not installed.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
    except ImportError:
        raise FleetError("hf:// needs huggingface_hub: pip install 'kanoclip-edge[hub]'") from None
    return huggingface_hub


def check_repository(name: str) -> str:
    """A repository's name, if it is one.

    Raises:
        FleetError: It is none.
    """
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        shown = "this" if re.search(r"[:@?=#]", name) else repr(name)  # which may hold a login
        raise FleetError(f"{shown} is no repository of the hub: write OWNER/NAME")
    return name


def fetch(repository: str, name: str, revision: str | None = None) -> Path:
    """A file of a repository, from the cache where it is there.

    HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they do everywhere.

    Args:
        repository: OWNER/NAME.
        name: The file's path in it.
        revision: A branch, tag or commit; None for the default branch.

    Returns:
        Its place in the cache.

    Raises:
        FleetError: It cannot be had, or is not what its hash says; nothing of it is left in the cache then.
    """
    library = open_library()
    shown = f"{SCHEME}{check_repository(repository)}/{name}"
    from huggingface_hub import constants

    cache = Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE)
    with words(shown, cache, repository):
        path = Path(
            library.hf_hub_download(
                repository,
                name,
                revision=revision,
                endpoint=os.environ.get("HF_ENDPOINT"),
                cache_dir=cache,
                library_name="kanoclip-edge",
            )
        )
    return whole(path, shown)


def whole(path: Path, shown: str) -> Path:
    """A file in the hub's cache, if it is what its hash says.

    Args:
        path: Its place, a link to the blob or the blob itself.
        shown: What to call it.

    Raises:
        FleetError: It is not; nothing of it is left in the cache then.
    """
    blob = path.resolve()
    if not _is_named(blob):
        for stale in (path, blob):
            stale.unlink(missing_ok=True)
        raise FleetError(f"{shown} is not what its hash says, changed on the way: it was thrown away; try again")
    return path


def _is_named(blob: Path) -> bool:
    """Whether a cached blob is what its name, the hash that the hub gave, says."""
    name = blob.name
    if re.fullmatch("[0-9a-f]{64}", name):
        return sha256_of(blob) == name
    if re.fullmatch("[0-9a-f]{40}", name):  # git's own hash, of small files
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
        with blob.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest() == name
    return False


@contextmanager
def unlogged() -> Iterator[None]:
    """Keeps huggingface_hub from logging every retry; the one line of the error says it better."""
    chatter = logging.getLogger("huggingface_hub")
    level = chatter.level
    chatter.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        chatter.setLevel(level)


@contextmanager
def words(shown: str, cache: Path | None = None, repository: str = "") -> Iterator[None]:
    """One line for what huggingface_hub raises; what a transfer left half done is removed."""
    from huggingface_hub import errors

    try:
        with unlogged():
            yield
    except KanoclipError:
        raise
    except Exception as error:  # httpx, OSError and the library's own
        if cache is not None:
            folder = cache / f"models--{repository.replace('/', '--')}" / "blobs"
            for half in folder.glob("*.incomplete"):
                half.unlink(missing_ok=True)
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
        if isinstance(error, errors.GatedRepoError) or status in (401, 403):
            reason = "no access: set HF_TOKEN to a token that may read (or write) it"
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = "there is no such repository, or HF_TOKEN is missing"
        elif isinstance(error, errors.RevisionNotFoundError):
            reason = "the repository has no such revision"
        elif isinstance(error, errors.RemoteEntryNotFoundError):
            reason = "the repository has no such file"
        elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
            reason = "it is not in the cache, and the hub is not asked or does not answer (HF_HUB_OFFLINE, network)"
        else:
            reason = f"the transfer failed ({one_line(error)[:100]}): try again"
        raise FleetError(f"{shown}: {reason}") from error


class HubLayout:
    """A repository of the hub in the layout of OCI images; see `Store`. Each `put` is a commit of its own."""

    def __init__(self, url: str) -> None:
        """Asks nothing yet.

        Raises:
            FleetError: huggingface_hub is not installed, or the URL names no repository.
        """
        self._repository = check_repository(url.removeprefix(SCHEME).rstrip("/"))
        self.shown = f"{SCHEME}{self._repository}"
        self._api = open_library().HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="kanoclip-edge")
        self._there = False

    def image(self, tag: str) -> bytes:
        """See `Store`."""
        digest = digest_of(self.shown, read_index(self._index() or b"{}"), tag)
        return small_blob(self, digest, IMAGE_LIMIT, "image manifest")

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """See `Store`; it comes into the cache as a whole first."""
        with fetch(self._repository, _place(digest)).open("rb") as file:
            file.seek(start)
            while block := file.read(BLOCK):
                yield block

    def tags(self) -> list[str]:
        """See `Store`."""
        return tags_of(self.shown, self._index())

    def has(self, digest: str, size: int) -> bool:
        """See `Store`."""
        self._make()
        with words(self.shown):
            found = self._api.get_paths_info(self._repository, [_place(digest)])
        return any(one.path == _place(digest) and one.size == size for one in found)

    def put(self, digest: str, size: int, content: BinaryIO) -> None:
        """See `Store`."""
        self._commit({_place(digest): content}, f"Add {digest}")

    def put_image(self, tag: str, image: bytes) -> None:
        """See `Store`; blob, layout and index come in one commit."""
        index = with_tag(self._index(), tag, image)
        files = {_place(sha256(image)): image, "oci-layout": LAYOUT, INDEX: index}
        self._commit(files, f"Set {tag}")

    def _commit(self, files: dict[str, Any], message: str) -> None:
        from huggingface_hub import CommitOperationAdd

        self._make()
        with words(self.shown):
            operations = [CommitOperationAdd(path, content) for path, content in files.items()]
            self._api.create_commit(self._repository, operations, commit_message=message)

    def _make(self) -> None:
        """Makes the repository where it is not there."""
        if not self._there:
            with words(self.shown):
                self._api.create_repo(self._repository, exist_ok=True, private=True)
            self._there = True

    def _index(self) -> bytes | None:
        with words(self.shown):
            if not self._api.file_exists(self._repository, INDEX):
                return None
        return fetch(self._repository, INDEX).read_bytes()


def _place(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
