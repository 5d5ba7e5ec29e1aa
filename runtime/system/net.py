"""Addresses to listen on."""

from __future__ import annotations

from kanoclip.runtime.errors import SettingsError


def parse_address(text: str) -> tuple[str, int]:
    """Takes HOST:PORT apart; an IPv6 address stands in brackets, port 0 is any free one.

    Raises:
        SettingsError: It is no address.
    """
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not separator or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit()):
        raise SettingsError(f"{text!r} is no address: give HOST:PORT, such as 127.0.0.1:8081 or [::1]:8081")
    if int(port) > 65535:
        raise SettingsError(f"{text!r} is no address: ports end at 65535")
    return host, int(port)
