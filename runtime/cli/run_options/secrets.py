"""Options that may hold passwords: in a file they stand by reference only, and nothing prints them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kanoclip.runtime.cli.run_options.kinds import Kind
from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.logs import clean
from kanoclip.runtime.system.net import has_secret, redact_url

_FORM = '{ env = "NAME" } or { file = "/path" }'
_LONGEST = 64 << 10


@dataclass(frozen=True)
class Secret:
    """A text that may be secret; one of the three is set.

    Attributes:
        env: The environment variable that holds it.
        file: The file whose only line it is.
        literal: The text itself, from a flag, or from a file where nothing in it looks like a secret.
    """

    env: str | None = None
    file: Path | None = None
    literal: str | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """The variable or the file, for messages."""
        return f"the address in {self.file if self.env is None else self.env}"

    def read(self) -> str:
        """The text.

        Raises:
            SettingsError: There is none; the message names the variable or the file, and never holds the text.
        """
        if self.env is not None:
            found = os.environ.get(self.env)
            if not found:
                raise SettingsError(f"the environment variable {self.env} is not set: set it, or name another one")
            return found
        if self.file is not None:
            try:
                with self.file.open("rb") as stream:
                    lines = stream.read(_LONGEST).decode("utf-8").splitlines()
            except OSError as error:
                raise SettingsError(
                    f"{self.file} cannot be read ({error.strerror or error}): it must hold the secret in one line"
                ) from error
            except UnicodeDecodeError:
                raise SettingsError(f"{self.file} is no text: it must hold the secret in one line") from None
            if len(lines) != 1 or not lines[0].strip():
                raise SettingsError(f"{self.file} has {len(lines)} lines: it must hold the secret in one line")
            return lines[0].strip()
        assert self.literal is not None
        return self.literal


class SecretText(Kind):
    """Passwords and the like. The flag names a file that holds it."""

    def of_flag(self, value: Any) -> Any:
        """The secret in a file; `value` is its path."""
        return Secret(file=Path(value))

    def of_toml(self, value: Any, folder: Path) -> Any:
        """A reference."""
        if isinstance(value, str):
            raise SettingsError(f"a secret in plain text; take it out of this file and write {_FORM}")
        return _reference(value, folder)

    def to_toml(self, value: Any) -> Any:
        """The reference."""
        return {"env": value.env} if value.env is not None else {"file": str(value.file.absolute())}


class LoginName(SecretText):
    """A user's name, which may be written plainly."""

    def of_toml(self, value: Any, folder: Path) -> Any:
        """The name, or a reference to it."""
        return Secret(literal=value) if isinstance(value, str) and value else _reference(value, folder)

    def to_toml(self, value: Any) -> Any:
        """The name, or the reference."""
        return value.literal if value.literal is not None else super().to_toml(value)


@dataclass(frozen=True)
class Url(Kind):
    """Addresses, which may hold a password.

    Attributes:
        variable: What a printed file calls the environment variable for one that must not be printed.
        all_secret: Any part behind the host may be a password, as with chat services: it is never printed.
    """

    variable: str
    all_secret: bool = False

    def of_flag(self, value: Any) -> Any:
        """The address, whatever it holds."""
        return Secret(literal=value)

    def of_toml(self, value: Any, folder: Path) -> Any:
        """An address without a password, or a reference to one."""
        if not isinstance(value, str):
            return _reference(value, folder)
        if not value or "\0" in value:
            raise SettingsError("this is no address or path")
        if has_secret(value):
            raise SettingsError(f"a secret in plain text; write the whole address as {_FORM}")
        return Secret(literal=value)

    def to_toml(self, value: Any) -> Any:
        """The address, or a reference where it holds a password."""
        if value.literal is None:
            return SecretText().to_toml(value)
        return {"env": f"{self.variable}_1"} if self.all_secret or has_secret(value.literal) else value.literal

    def shown(self, value: Secret) -> str:
        """An address without what may be secret."""
        url = clean(redact_url(value.literal or ""))
        scheme, separator, rest = url.partition("://")
        return f"{scheme}{separator}{rest.partition('/')[0].rpartition('@')[2]}/..." if self.all_secret else url


def _reference(value: Any, folder: Path) -> Secret:
    form = SettingsError(f"write it as {_FORM}")  # the value itself may be a secret
    if not isinstance(value, dict) or len(value) != 1:
        raise form
    ((kind, name),) = value.items()
    if kind not in ("env", "file") or not isinstance(name, str) or not name or "\0" in name or "=" in name:
        raise form
    return Secret(env=name) if kind == "env" else Secret(file=folder / Path(name).expanduser())
