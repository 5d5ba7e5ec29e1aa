"""Takes a bundle out of a store: first what is signed, then the files; nothing is used before it is checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.bundle.bundle import MANIFEST_LIMIT, Bundle, sha256_of
from kanoclip.runtime.bundle.manifest.parts import FileInfo
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, Manifest
from kanoclip.runtime.engines.base import Report
from kanoclip.runtime.errors import BundleError, FleetError
from kanoclip.runtime.ops.fleet.address import content_address, short
from kanoclip.runtime.ops.fleet.keys import TrustedKey
from kanoclip.runtime.ops.fleet.reference import Reference
from kanoclip.runtime.ops.fleet.statement import ENVELOPE_LIMIT, Statement, verified
from kanoclip.runtime.ops.fleet.stores.blobs import BrokenOffError, small_blob
from kanoclip.runtime.ops.fleet.stores.oci import read_image
from kanoclip.runtime.ops.fleet.stores.store import Store
from kanoclip.runtime.system.files.leftovers import sweep_numbered

SIGNATURE_NAME = "signature.json"
"""The signed statement lies beside the manifest of a bundle that was pulled."""
DEFAULT_LIMIT = 16 << 30
_TRIES = 4
_MOST_FILES = 10_000


@dataclass(frozen=True)
class Offer:
    """What a store has under a reference: manifest and signature were checked, no file was fetched yet.

    Attributes:
        store: Where it is.
        address: Content address.
        manifest: The bundle's.
        text: The same as it stands in the file.
        envelope: The signed statement as it was pushed; None where unsigned ones are taken, and it is one.
        statement: What was signed; None without a signature.
        key: Who signed; None without a signature.
    """

    store: Store
    address: str
    manifest: Manifest
    text: bytes
    envelope: bytes | None = None
    statement: Statement | None = None
    key: TrustedKey | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(info.size for info in self.manifest.files.values())

    def words(self) -> str:
        """Name and address."""
        return f"{self.manifest.name} {short(self.address)}"


def look(store: Store, reference: Reference, trusted: Sequence[TrustedKey], *, unsigned: bool = False) -> Offer:
    """Finds a bundle and checks who vouches for it.

    Args:
        store: Where to look.
        reference: Which one.
        trusted: Keys whose signatures count.
        unsigned: Take a bundle that nobody signed, or whose signature is not checked; no matter where there are keys.

    Raises:
        FleetError: It is not there, nobody who is trusted signed it, or it is not what was signed.
        BundleError: Its manifest is no good.
    """
    where = f"{store.shown}: {reference.in_store if reference.address is None else short(reference.address)}"
    try:
        return _look(store, reference, trusted, unsigned)
    except BrokenOffError:
        raise
    except (FleetError, BundleError) as error:
        if str(error).startswith(store.shown):
            raise
        raise type(error)(f"{where} is refused: {error}") from error


def _look(store: Store, reference: Reference, trusted: Sequence[TrustedKey], unsigned: bool) -> Offer:
    image = read_image(store.image(reference.in_store))
    envelope, statement, key = None, None, None
    if image.envelope is not None and trusted:
        envelope = small_blob(store, image.envelope, ENVELOPE_LIMIT, "signature")
        statement, key = verified(envelope, trusted)
        statement.check_times()
        if statement.tag != reference.tag:
            signed_for = "a pull by content address" if statement.tag is None else f"the tag {statement.tag}"
            raise FleetError(f"its signature is for {signed_for}: somebody moved it")
    elif trusted:
        raise FleetError("nobody signed it, or its signature was taken away: leave --trust out to take it unsigned")
    elif not unsigned:
        if image.envelope is not None:
            raise FleetError("it is signed, and no key was named to check it by: --trust FILE.pub")
        raise FleetError("nobody signed it: push it with --key, or pull it with --unsigned if it needs no proof")
    text = small_blob(store, image.manifest, MANIFEST_LIMIT, MANIFEST_NAME)
    address = content_address(text)
    if statement is not None and statement.bundle != address:
        raise FleetError(f"its manifest is not the one that was signed ({short(statement.bundle)}): it was changed")
    if reference.address is not None and reference.address != address:
        raise FleetError(f"it is {short(address)}, and not what was asked for")
    manifest = read_manifest(text.decode())
    if len(manifest.files) > _MOST_FILES:
        raise FleetError(f"it has {len(manifest.files)} files: {_MOST_FILES} is the most that is taken")
    if reserved := {MANIFEST_NAME, SIGNATURE_NAME} & manifest.files.keys():
        raise FleetError(f"it lists a file {min(reserved)}, which is no bundle's own")
    return Offer(store, address, manifest, text, envelope, statement, key)


def fetch(
    offer: Offer, folder: Path, report: Report, limit: int = DEFAULT_LIMIT, have: Mapping[str, Path] | None = None
) -> int:
    """Fetches an offer's files into a folder that is not there yet: whole and verified, or not at all.

    Args:
        offer: What to fetch.
        folder: Where to.
        report: Called with the progress of the files.
        limit: Most bytes to take.
        have: sha256 of files that lie here and their places: they are linked or copied instead of being fetched, and
            the whole bundle is made read-only, so that none changes with another.

    Returns:
        Bytes that were fetched.

    Raises:
        FleetError: A file is damaged, longer or shorter than signed, or cannot be read; or the whole is too large.
        BundleError: The folder cannot be written.
    """
    if offer.size > limit:
        raise FleetError(f"{offer.words()} has {offer.size} bytes, over the limit of {limit}: raise --max-size")
    sweep_numbered(folder)
    beside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        if offer.size > (free := shutil.disk_usage(beside).free):
            raise BundleError(f"{folder.parent} has {free >> 20} MiB free, {offer.words()} needs {offer.size >> 20}")
        fetched = _fetch_all(offer, beside, have or {}, report)
        (beside / MANIFEST_NAME).write_bytes(offer.text)
        if offer.envelope is not None:
            (beside / SIGNATURE_NAME).write_bytes(offer.envelope)
        Bundle.open(beside)  # once more from the disk, as every start does
        _settle(beside, read_only=have is not None)
        beside.rename(folder)
        sync(folder.parent)
        return fetched
    except OSError as error:
        raise BundleError(f"{folder} cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        remove(beside)


def _fetch_all(offer: Offer, folder: Path, have: Mapping[str, Path], report: Report) -> int:
    done = fetched = 0
    for name, info in offer.manifest.files.items():
        path, total, so_far = folder / name, offer.size or 1, done
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _taken_from_here(have.get(info.sha256), path, info):

            def on_bytes(size: int, name: str = name, before: int = so_far, total: int = total) -> None:
                report(f"fetching {name}", min((before + size) / total, 1.0))

            _fetch_one(offer, name, info, path, on_bytes)
            fetched += info.size
        done += info.size
    return fetched


def _taken_from_here(source: Path | None, path: Path, info: FileInfo) -> bool:
    """Links or copies a file that is at hand, if it is still what it was."""
    if source is None:
        return False
    try:
        if source.stat().st_size != info.size or sha256_of(source) != info.sha256:
            return False
        try:
            os.link(source, path)
        except OSError:
            shutil.copyfile(source, path)
    except OSError:
        path.unlink(missing_ok=True)
        return False
    return True


def _fetch_one(offer: Offer, name: str, info: FileInfo, path: Path, on_bytes: Callable[[int], None]) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for last in (False,) * (_TRIES - 1) + (True,):
            try:
                for block in offer.store.blob(f"sha256:{info.sha256}", size):
                    if size + len(block) > info.size:
                        raise FleetError(
                            f"{offer.words()} is refused: {name} is longer than the {info.size} bytes signed"
                        )
                    file.write(block)
                    digest.update(block)
                    size += len(block)
                    on_bytes(size)
                break
            except BrokenOffError:
                if last:
                    raise
    if size < info.size:
        raise FleetError(f"{offer.words()} is refused: {name} is truncated, {size} of {info.size} bytes are there")
    if digest.hexdigest() != info.sha256:
        raise FleetError(f"{offer.words()} is refused: {name} was damaged or changed (its sha256 is another)")


def _settle(folder: Path, read_only: bool) -> None:
    """Makes all of it last, through a loss of power too."""
    for path in (*sorted(folder.rglob("*"), reverse=True), folder):
        if read_only:
            path.chmod(0o555 if path.is_dir() else 0o444)
        sync(path)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Removes a folder of ours, if it is there; what cannot be removed is left."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
