"""The bundles that lie in a box's folder, by content address, and the link to the current one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kanoclip.runtime.bundle.bundle import SUFFIX, Bundle
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import BundleError, FleetError
from kanoclip.runtime.ops.fleet.address import content_address
from kanoclip.runtime.ops.fleet.pull import SIGNATURE_NAME, remove, sync
from kanoclip.runtime.ops.fleet.reference import address_tag, is_address_tag
from kanoclip.runtime.ops.fleet.statement import ENVELOPE_LIMIT, signed_time
from kanoclip.runtime.system.files.regular import read_small

CURRENT = "current" + SUFFIX
VERSIONS = "versions"


class Versions:
    """Whole bundles side by side, one of them the current one.

    Attributes:
        folder: Where link and bundles lie.
        link: Leads to the current bundle.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.link = folder / CURRENT

    @property
    def current(self) -> str | None:
        """Content address of the current bundle; None where there is none."""
        try:
            name = self.link.readlink().name
        except OSError:
            return None
        return name.replace("-", ":", 1) if is_address_tag(name) else None

    def place(self, address: str) -> Path:
        """Where a bundle lies, or would."""
        return self.folder / VERSIONS / address_tag(address)

    def addresses(self) -> list[str]:
        """Content addresses of the bundles that are there."""
        folder = self.folder / VERSIONS
        found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name.replace("-", ":", 1) for name in found if is_address_tag(name))

    def is_whole(self, address: str) -> bool:
        """Whether a version is there and still what its address says."""
        try:
            bundle = Bundle.open(self.place(address))
            return content_address((bundle.root / MANIFEST_NAME).read_bytes()) == address
        except (BundleError, OSError):
            return False

    def signed_at(self, address: str) -> str | None:
        """When a version was signed, by the signature that lies in it: no history is needed to refuse an older one."""
        try:
            return signed_time(read_small(self.place(address) / SIGNATURE_NAME, ENVELOPE_LIMIT), address)
        except OSError:
            return None

    def clear(self, address: str) -> None:
        """Removes what is left of a version.

        Raises:
            FleetError: It is whole and only another than it was.
        """
        folder = self.place(address)
        with contextlib.suppress(BundleError):
            Bundle.open(folder)
            raise FleetError(
                f"{folder} was changed since it was pulled: move it away, or push it as a bundle of its own"
            )
        remove(folder)

    def files(self) -> dict[str, Path]:
        """Files of all versions by sha256; whether they still are what they were is for the taker to see."""
        found: dict[str, Path] = {}
        for address in self.addresses():
            folder = self.place(address)
            with contextlib.suppress(BundleError, OSError, UnicodeDecodeError):
                manifest = read_manifest(read_small(folder / MANIFEST_NAME).decode())
                found |= {info.sha256: folder / name for name, info in manifest.files.items()}
        return found

    def make_current(self, address: str) -> None:
        """Moves the link in one step: whoever opens it finds the old bundle or the new one.

        Raises:
            BundleError: It cannot be moved; nothing is changed.
        """
        beside = self.link.with_name(f"{CURRENT}.{os.getpid()}.part")
        try:
            if self.link.exists() and not self.link.is_symlink():
                raise BundleError(f"{self.link} is no link: move that bundle away first")
            beside.unlink(missing_ok=True)
            beside.symlink_to(Path(VERSIONS, address_tag(address)))
            beside.replace(self.link)
            sync(self.folder)
        except OSError as error:
            raise BundleError(f"{self.link} cannot be moved ({error.strerror}); nothing was changed") from error
