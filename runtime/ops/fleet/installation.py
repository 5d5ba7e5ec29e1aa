"""The bundles of a box: versions side by side, a link to the current one, and the way back.

FOLDER/current.kanoclip -> versions/sha256-...      what kanoclip-run uses
FOLDER/versions/sha256-.../                         whole bundles, read-only
FOLDER/fleet.json                                   see `history`
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from kanoclip.runtime.bundle.bundle import SUFFIX, Bundle
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.engines.base import Report
from kanoclip.runtime.errors import BundleError, FleetError, KanoclipError
from kanoclip.runtime.ops.fleet.address import content_address, short
from kanoclip.runtime.ops.fleet.history import History, Installed
from kanoclip.runtime.ops.fleet.pull import SIGNATURE_NAME, Offer, fetch, remove, sync
from kanoclip.runtime.ops.fleet.reference import address_tag, is_address_tag
from kanoclip.runtime.ops.fleet.statement import ENVELOPE_LIMIT, SKEW, Statement, now, signed_time
from kanoclip.runtime.system.files.lock import Lock, LockedError
from kanoclip.runtime.system.files.regular import read_small

CURRENT = "current" + SUFFIX
VERSIONS = "versions"
HISTORY = "fleet.json"
DEFAULT_KEEP = 3


@dataclass(frozen=True)
class Outcome:
    """What an installation came to.

    Attributes:
        address: Of the bundle that is current now.
        changed: Whether it was not before.
        fetched: Bytes that came from the store.
    """

    address: str
    changed: bool
    fetched: int = 0


class Installation:
    """One folder of bundles; see the module."""

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

    def version(self, address: str) -> Path:
        """Where a bundle lies, or would."""
        return self.folder / VERSIONS / address_tag(address)

    def versions(self) -> list[str]:
        """Content addresses of what is there."""
        folder = self.folder / VERSIONS
        found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name.replace("-", ":", 1) for name in found if is_address_tag(name))

    def history(self) -> History:
        """What was installed and refused; ends with the current bundle, whatever the file says.

        Raises:
            FleetError: It cannot be read.
        """
        history, current = History.read(self.folder / HISTORY), self.current
        if current is None or (history.installed and history.installed[-1].address == current):
            return history
        # A loss of power between link and file, or somebody moved the link by hand.
        known = next((one for one in history.installed if one.address == current), None)
        signed_at = None if known is not None else self._signed_at(current)
        return history.with_installed(known or Installed(current, "", now(), "unknown", None, signed_at))

    def _signed_at(self, address: str) -> str | None:
        """When a version was signed, by the signature that lies in it: no history is needed to refuse an older one."""
        try:
            return signed_time(read_small(self.version(address) / SIGNATURE_NAME, ENVELOPE_LIMIT), address)
        except OSError:
            return None

    def install(
        self,
        offer: Offer,
        examine: Callable[[Path], None],
        start: Callable[[], None],
        report: Report,
        *,
        limit: int,
        again: bool = False,
        older: bool = False,
        keep: int = DEFAULT_KEEP,
    ) -> Outcome:
        """Makes an offer the current bundle, or leaves everything as it was.

        Args:
            offer: What to install.
            examine: Looks at the new one where it lies, and raises KanoclipError if it will not do.
            start: Makes use of the current one, and raises KanoclipError if that fails; called again after a rollback.
            report: Called with the progress of the files.
            limit: Most bytes to take.
            again: Take one that was refused before.
            older: Take one that was signed before the current one.
            keep: How many versions to keep.

        Raises:
            FleetError: The bundle was refused here before, is older, fails, or cannot be fetched.
            BundleError: It is no good, or cannot be written.
        """
        with self._locked():
            history, before = self.history(), self.current
            if offer.address == before and self._whole(before):
                if _newer(offer.statement, history.installed[-1]):  # the same bundle, signed anew
                    self._note(offer, history)
                return Outcome(before, changed=False)
            self._check(offer, history, again, older)
            fetched = 0
            if not self._whole(offer.address):
                self._clear(offer.address)
                fetched = fetch(offer, self.version(offer.address), report, limit, self._files())
            try:
                examine(self.version(offer.address))
            except KanoclipError as error:
                self._refuse(offer.address, f"failed kanoclip-doctor: {error}")
                stays = f"{short(before)} stays" if before else "nothing is installed"
                raise FleetError(f"{offer.words()} fails kanoclip-doctor here, {stays}: {error}") from error
            self._switch(offer.address)
            self._note(offer, history)
            try:
                start()
            except KanoclipError as error:
                if before is None:
                    raise FleetError(f"{offer.words()} is installed, but does not start: {error}") from error
                self._switch(before)
                self._refuse(offer.address, f"did not start: {error}")
                with contextlib.suppress(KanoclipError):
                    start()
                raise FleetError(f"{offer.words()} does not start here, back to {short(before)}: {error}") from error
            self._collect(keep)
            return Outcome(offer.address, changed=True, fetched=fetched)

    def roll_back(self, to: str | None, start: Callable[[], None]) -> str:
        """Makes the bundle before the current one the current one; that one is refused from now on.

        Args:
            to: The beginning of a content address that is installed; None for the one before.
            start: As `install` has it.

        Returns:
            Its content address.

        Raises:
            FleetError: There is none, or it does not start.
            BundleError: It was damaged meanwhile.
        """
        with self._locked():
            current, history = self.current, self.history()
            there = [one.address for one in history.installed if self.version(one.address).is_dir()]
            if to is None:
                found = [one for one in there if one != current][-1:]
            else:
                wanted = to if to.startswith("sha256:") else f"sha256:{to}"
                found = [one for one in self.versions() if one.startswith(wanted) and one != current]
            if len(found) != 1:
                names = ", ".join(short(one) for one in self.versions() if one != current) or "none"
                raise FleetError(f"{self.folder} has no {to or 'bundle before the current one'}: there are {names}")
            bundle = Bundle.open(self.version(found[0]))
            self._switch(found[0])
            if current is not None:
                history = history.with_refused(current, now(), "rolled back by hand")
            known = next((one for one in history.installed if one.address == found[0]), None)
            if known is None:
                entry = Installed(found[0], bundle.manifest.name, now(), "rollback", None, None)
            else:
                entry = replace(known, at=now(), origin="rollback")
            self._write(history.with_installed(entry))
            start()
            return found[0]

    def _check(self, offer: Offer, history: History, again: bool, older: bool) -> None:
        refusal = history.refusal(offer.address)
        if refusal is not None and not again:
            raise FleetError(
                f"{offer.words()} is not taken: {refusal.reason} ({refusal.at}); --again takes it all the same"
            )
        current = _believable(history.installed[-1]) if history.installed else None
        if older or current is None or current.signed_at is None:
            return
        if offer.statement is None or (
            offer.statement.signed_at != current.signed_at and not _newer(offer.statement, current)
        ):
            signed = "never signed" if offer.statement is None else f"signed {offer.statement.signed_at}"
            raise FleetError(
                f"{offer.words()} was {signed}, the current one {current.signed_at}: --older takes it all the same"
            )

    def _whole(self, address: str) -> bool:
        """Whether a version is there and still what its address says."""
        try:
            bundle = Bundle.open(self.version(address))
            return content_address((bundle.root / MANIFEST_NAME).read_bytes()) == address
        except (BundleError, OSError):
            return False

    def _clear(self, address: str) -> None:
        """Removes what is left of a version, unless it is whole and only another than it was."""
        folder = self.version(address)
        with contextlib.suppress(BundleError):
            Bundle.open(folder)
            raise FleetError(
                f"{folder} was changed since it was pulled: move it away, or push it as a bundle of its own"
            )
        remove(folder)

    def _files(self) -> dict[str, Path]:
        """Files of all versions by sha256; whether they still are what they were is for the taker to see."""
        found: dict[str, Path] = {}
        for address in self.versions():
            folder = self.version(address)
            with contextlib.suppress(BundleError, OSError, UnicodeDecodeError):
                manifest = read_manifest(read_small(folder / MANIFEST_NAME).decode())
                found |= {info.sha256: folder / name for name, info in manifest.files.items()}
        return found

    def _switch(self, address: str) -> None:
        """Moves the link in one step: whoever opens it finds the old bundle or the new one."""
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

    def _note(self, offer: Offer, before: History) -> None:
        key = None if offer.key is None else offer.key.id
        signed_at = None if offer.statement is None else offer.statement.signed_at
        entry = Installed(offer.address, offer.manifest.name, now(), offer.store.shown, key, signed_at)
        self._write(before.with_installed(entry))

    def _refuse(self, address: str, reason: str) -> None:
        history = self.history()
        if address == self.current:  # it was fetched again: no other is there to go back to by itself
            return
        self._write(history.with_refused(address, now(), reason))
        remove(self.version(address))

    def _write(self, history: History) -> None:
        try:
            history.write(self.folder / HISTORY)
        except OSError as error:
            raise BundleError(f"{self.folder / HISTORY} cannot be written ({error.strerror})") from error

    def _collect(self, keep: int) -> None:
        """Removes all but the newest versions, the current one and the one before it."""
        order = [one.address for one in reversed(self.history().installed)]
        staying = set(order[: max(keep, 2)]) | {self.current}
        for address in self.versions():
            if address not in staying:
                remove(self.version(address))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time; what a killed one left half done is removed."""
        try:
            (self.folder / VERSIONS).mkdir(parents=True, exist_ok=True)
            lock = Lock(self.folder / f".{HISTORY}.lock", leave=True)
        except LockedError:
            raise FleetError(f"{self.folder} is in use by another kanoclip-bundle: wait for it") from None
        except OSError as error:
            raise BundleError(f"{self.folder} cannot be written to ({error.strerror})") from error
        with lock:
            for left in (self.folder / VERSIONS).glob("*.part"):
                remove(left)
            yield


def _believable(one: Installed) -> Installed:
    """With the time of its installation, where it was signed long after: such a time would refuse all later ones."""
    try:
        at = datetime.fromisoformat(one.at)
        late = one.signed_at is not None and datetime.fromisoformat(one.signed_at) > at + SKEW
    except (ValueError, TypeError):
        return one
    return replace(one, signed_at=one.at) if late else one


def _newer(statement: Statement | None, than: Installed) -> bool:
    """Whether something was signed after an installed bundle was."""
    if statement is None or than.signed_at is None:
        return statement is not None
    return statement.time > datetime.fromisoformat(than.signed_at)
