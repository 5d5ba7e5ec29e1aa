"""Addresses to listen on, and URLs, which are shown without their credentials."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kanoclip.runtime.errors import SettingsError

SECRET = re.compile(r"pass|pwd|token|key|secret|auth|sig|user|login|credential", re.IGNORECASE)
"""Matches the names of fields whose values are not to be shown."""
_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp"})


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


def is_url(spec: str) -> bool:
    """Whether a source string is a URL of a scheme that FFmpeg streams from."""
    scheme, separator, _ = spec.partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def redact_url(url: str) -> str:
    """Takes the credentials out of a URL, so that it can be printed and written to files.

    User name and password before the host go, and so do the values of query parameters that look like secrets.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("://")[0] + "://..."
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    query = parts.query
    if query:
        pairs = parse_qsl(query, keep_blank_values=True)
        shown = [(name, "***" if SECRET.search(name) else value) for name, value in pairs]
        query = urlencode(shown, safe="*") if any(SECRET.search(name) for name, _ in pairs) else query
    return urlunsplit((parts.scheme, netloc, parts.path, query, ""))
