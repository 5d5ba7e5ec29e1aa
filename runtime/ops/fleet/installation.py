"""The bundles of a box: versions side by side, a link to the current one, and the way back.

FOLDER/current.kanoclip -> versions/sha256-...      what kanoclip-run uses
FOLDER/versions/sha256-.../                         whole bundles, read-only
FOLDER/fleet.json                                   see `history`
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.base import Report
from kanoclip.runtime.errors import BundleError, FleetError, KanoclipError
from kanoclip.runtime.ops.fleet.address import short
from kanoclip.runtime.ops.fleet.history import History, Installed
from kanoclip.runtime.ops.fleet.pull import Offer, fetch, remove
from kanoclip.runtime.ops.fleet.statement import SKEW, Statement, now
from kanoclip.runtime.ops.fleet.versions import VERSIONS, Versions
from kanoclip.runtime.system.files.lock import Lock, LockedError

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
        self.versions = Versions(folder)

    def history(self) -> History:
        """What was installed and refused; ends with the current bundle, whatever the file says.

        Raises:
            FleetError: It cannot be read.
        """
        history, current = History.read(self.folder / HISTORY), self.versions.current
        if current is None or (history.installed and history.installed[-1].address == current):
            return history
        # A loss of power between link and file, or somebody moved the link by hand.
        known = next((one for one in history.installed if one.address == current), None)
        signed_at = None if known is not None else self.versions.signed_at(current)
        return history.with_installed(known or Installed(current, "", now(), "unknown", None, signed_at))

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
            history, before = self.history(), self.versions.current
            if offer.address == before and self.versions.is_whole(before):
                if _newer(offer.statement, history.installed[-1]):  # the same bundle, signed anew
                    self._note(offer, history)
                return Outcome(before, changed=False)
            self._check(offer, history, again, older)
            fetched = 0
            if not self.versions.is_whole(offer.address):
                self.versions.clear(offer.address)
                fetched = fetch(offer, self.versions.place(offer.address), report, limit, self.versions.files())
            try:
                examine(self.versions.place(offer.address))
            except KanoclipError as error:
                self._refuse(offer.address, f"failed kanoclip-doctor: {error}")
                stays = f"{short(before)} stays" if before else "nothing is installed"
                raise FleetError(f"{offer.words()} fails kanoclip-doctor here, {stays}: {error}") from error
            self.versions.make_current(offer.address)
            self._note(offer, history)
            try:
                start()
            except KanoclipError as error:
                if before is None:
                    raise FleetError(f"{offer.words()} is installed, but does not start: {error}") from error
                self.versions.make_current(before)
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
            current, history = self.versions.current, self.history()
            there = [one.address for one in history.installed if self.versions.place(one.address).is_dir()]
            if to is None:
                found = [one for one in there if one != current][-1:]
            else:
                wanted = to if to.startswith("sha256:") else f"sha256:{to}"
                found = [one for one in self.versions.addresses() if one.startswith(wanted) and one != current]
            if len(found) != 1:
                names = ", ".join(short(one) for one in self.versions.addresses() if one != current) or "none"
                raise FleetError(f"{self.folder} has no {to or 'bundle before the current one'}: there are {names}")
            bundle = Bundle.open(self.versions.place(found[0]))
            self.versions.make_current(found[0])
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

    def _note(self, offer: Offer, before: History) -> None:
        key = None if offer.key is None else offer.key.id
        signed_at = None if offer.statement is None else offer.statement.signed_at
        entry = Installed(offer.address, offer.manifest.name, now(), offer.store.shown, key, signed_at)
        self._write(before.with_installed(entry))

    def _refuse(self, address: str, reason: str) -> None:
        history = self.history()
        if address == self.versions.current:  # it was fetched again: no other is there to go back to by itself
            return
        self._write(history.with_refused(address, now(), reason))
        remove(self.versions.place(address))

    def _write(self, history: History) -> None:
        try:
            history.write(self.folder / HISTORY)
        except OSError as error:
            raise BundleError(f"{self.folder / HISTORY} cannot be written ({error.strerror})") from error

    def _collect(self, keep: int) -> None:
        """Removes all but the newest versions, the current one and the one before it."""
        order = [one.address for one in reversed(self.history().installed)]
        staying = set(order[: max(keep, 2)]) | {self.versions.current}
        for address in self.versions.addresses():
            if address not in staying:
                remove(self.versions.place(address))

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
