"""What was installed on a box, one after the other, and what will not be installed again by itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.address import ADDRESS
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.paths import replace_file

_SCHEMA = 1
_MOST = 100
"""The most entries that are saved of each kind."""


@dataclass(frozen=True)
class Installed:
    """A bundle that became the current one.

    Attributes:
        address: Content address.
        name: The bundle's name.
        at: When, ISO-8601 in UTC.
        origin: URL of the store, without credentials; `rollback` where it was there before.
        key: Who signed it; None for nobody.
        signed_at: When it was signed; None for never.
    """

    address: str
    name: str
    at: str
    origin: str
    key: str | None
    signed_at: str | None


@dataclass(frozen=True)
class Refused:
    """A bundle that did not do here.

    Attributes:
        address: Content address.
        at: When, ISO-8601 in UTC.
        reason: In words.
    """

    address: str
    at: str
    reason: str


@dataclass(frozen=True)
class History:
    """All of it.

    Attributes:
        installed: The last is the current one, those before it are what a rollback goes back to.
        refused: What is taken again only when somebody says so.
    """

    installed: tuple[Installed, ...] = ()
    refused: tuple[Refused, ...] = ()

    def with_installed(self, new: Installed) -> History:
        """With a new current one, which is refused no longer."""
        before = tuple(one for one in self.installed if one.address != new.address)
        refused = tuple(one for one in self.refused if one.address != new.address)
        return History((*before, new)[-_MOST:], refused)

    def with_refused(self, address: str, at: str, reason: str) -> History:
        """Without a bundle, which is refused from now on."""
        before = tuple(one for one in self.refused if one.address != address)
        left = tuple(one for one in self.installed if one.address != address)
        return replace(self, installed=left, refused=(*before, Refused(address, at, reason))[-_MOST:])

    def refusal(self, address: str) -> Refused | None:
        """Why a bundle is not taken, if it is not."""
        return next((one for one in self.refused if one.address == address), None)

    def write(self, path: Path) -> None:
        """Writes it, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        replace_file(path, json.dumps({"schema": _SCHEMA} | asdict(self), indent=2).encode())

    @classmethod
    def read(cls, path: Path) -> History:
        """Reads it; an empty one where there is none.

        Raises:
            FleetError: It is damaged.
        """
        try:
            value = json.loads(read_small(path))
            if value["schema"] != _SCHEMA:
                raise ValueError
            history = cls(
                tuple(Installed(**one) for one in value["installed"]), tuple(Refused(**one) for one in value["refused"])
            )
            entries: tuple[Installed | Refused, ...] = (*history.installed, *history.refused)
            texts = [value for one in entries for value in asdict(one).values() if value is not None]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError
            if not all(ADDRESS.fullmatch(one.address) for one in entries):
                raise ValueError
            signed = [one.signed_at for one in history.installed if one.signed_at is not None]
            if any(datetime.fromisoformat(time).tzinfo is None for time in signed):  # what cannot be compared
                raise ValueError
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise FleetError(f"{path} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FleetError(
                f"{path} is damaged: delete it; the current bundle stays, what was before it is forgotten"
            ) from None
        return history
