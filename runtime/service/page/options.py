"""Where the page is served, and who may see it."""

from __future__ import annotations

import ipaddress
import logging
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.page.tools.allowed import AllowedSources
from kanoclip.runtime.system.net import parse_address

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "KANOCLIP_TOKEN"
MIN_TOKEN = 16
MAX_TOKEN = 1024
_HOW = (
    "make one by `(umask 077; openssl rand -hex 32 > token)` and give --token-file token, "
    f"or set the environment variable {TOKEN_VARIABLE}"
)


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Where the page is served, and who may see it; `parse` makes one from what a user wrote.

    Attributes:
        host: Address or name to listen on.
        port: 0 for any free one.
        token: What a browser has to know; None where everybody on this machine may see the page.
        tls_cert: Certificate chain, PEM.
        tls_key: Its key, PEM; None where the certificate's file holds it.
        allow_hosts: Further names by which the page may be called, in lower case.
        allowed: Sources that may be added by it.
    """

    host: str
    port: int
    token: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_hosts: frozenset[str] = frozenset()
    allowed: AllowedSources = field(default_factory=AllowedSources)

    @classmethod
    def parse(
        cls,
        address: str,
        *,
        token_file: str | Path | None = None,
        token: str | None = None,
        tls_cert: str | Path | None = None,
        tls_key: str | Path | None = None,
        allow_hosts: Iterable[str] = (),
        allow_sources: Iterable[str] = (),
    ) -> PageOptions:
        """Checks what a user wrote.

        Args:
            address: `HOST:PORT`, `[IPV6]:PORT`.
            token_file: A file whose only line is the token; overrides `token`.
            token: The token, from the environment.
            tls_cert: Certificate chain, PEM.
            tls_key: Its key, PEM.
            allow_hosts: Further names by which the page may be called.
            allow_sources: Patterns of network cameras that may be added, such as `rtsp://192.168.1.*`.

        Raises:
            SettingsError: Makes no sense, or would let anybody in the network change thresholds.
        """
        try:
            host, port = parse_address(address)
        except SettingsError as error:
            raise SettingsError(f"--serve: {error}") from None
        secret = read_token(Path(token_file)) if token_file is not None else token or None
        if secret is not None:
            _check_token(secret, f"--token-file {token_file}" if token_file is not None else TOKEN_VARIABLE)
        elif not is_loopback(host):
            raise SettingsError(
                f"--serve {address}: anybody who reaches this address could watch and change the stream, "
                f"so it needs a token: {_HOW}"
            )
        if tls_key is not None and tls_cert is None:
            raise SettingsError("--tls-key goes with --tls-cert")
        names = frozenset(name.strip().lower().rstrip(".") for name in allow_hosts)
        for name in names:
            if not name or any(sign in name for sign in "/:@*") or not name.isascii():
                raise SettingsError(f"--allow-host {name!r}: give a plain name such as line3.factory.example")
        return cls(
            host,
            port,
            secret,
            None if tls_cert is None else Path(tls_cert),
            None if tls_key is None else Path(tls_key),
            names,
            AllowedSources.parse(tuple(allow_sources)),
        )

    @property
    def secure(self) -> bool:
        """Whether it is served by HTTPS."""
        return self.tls_cert is not None


def is_loopback(host: str) -> bool:
    """Whether an address, or every address that a name stands for, is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(str(entry[4][0])).is_loopback for entry in found)


def read_token(path: Path) -> str:
    """The token in a file of one line.

    Raises:
        SettingsError: The file cannot be read, or holds anything else. The message never holds the token.
    """
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = stream.read(MAX_TOKEN + 3)
    except OSError as error:
        raise SettingsError(f"--token-file {path}: cannot be read ({error.strerror or error}); {_HOW}") from error
    if mode & stat.S_IROTH:
        log.warning("--token-file %s can be read by every user of this machine: chmod o-r", path)
    lines = text.splitlines()
    if len(lines) != 1:
        raise SettingsError(f"--token-file {path}: must hold one line, the token; {_HOW}")
    try:
        return lines[0].decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise SettingsError(f"--token-file {path}: the token must be plain letters and digits; {_HOW}") from error


def _check_token(token: str, origin: str) -> None:
    if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise SettingsError(
            f"{origin}: a token has {MIN_TOKEN} to {MAX_TOKEN} letters and digits, without spaces; {_HOW}"
        )
