"""Addresses to listen on, and URLs, which are shown without their credentials."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from kanoclip.runtime.errors import SettingsError

SECRET = re.compile(
    r"pass|pwd|psw|pw$|token|key|secret|auth|sig|user|usr|proxy-id|login|credential|sess|jwt|hash|pin$|^(?:u|p|code)$",
    re.IGNORECASE,
)
"""Matches the names of fields whose values are not to be shown."""
HIDDEN = "***"
_EXAMPLES = ("USER:PASSWORD@", "://HOST")
"""In the forms that messages show, which are no addresses."""
ESCAPE_HINT = "write # / ? @ in a user name or password as %23 %2F %3F %40"
_LOCAL = frozenset({"watch", "test", "csi", "genicam", "file"})
"""Schemes of things on this machine, which take no login."""
_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp"})

# Delimiters count in their percent-encoded forms too, once or several times encoded: cameras decode them.
_AT = re.compile(r"@|%(?:25)*40", re.IGNORECASE)
_EQUALS = r"(?:=|%(?:25)*3d)"
_BETWEEN = r"(?:[&;?#/,_!\s]|%(?:25)*(?:26|3b|3f|23|2f|2c))"
_NAMED = re.compile(rf"(?P<name>[^=&;?#/,\s]{{1,64}}?){_EQUALS}", re.IGNORECASE)
_FOLDER = re.compile(r"(/(?:token|key|apikey|pass|password|passwd|pwd|secret|auth)/).+", re.IGNORECASE)
_AFTER = re.compile(
    rf"{_BETWEEN}(?:(?P<plain>channel|chan|ch|stream|streamtype|subtype|fps|width|height|w|h|resolution|quality|codec|profile"
    rf"|camera|cam|video|audio|transport|unicast|proto){_EQUALS}[a-z0-9.]{{1,12}}(?={_BETWEEN}|$)"
    rf"|(?P<secret>user|username|usr|login|password|passwd|pass|pwd|token|key|auth|signature|sig){_EQUALS})",
    re.IGNORECASE,
)
"""What is shown behind a secret: these fields alone, since anything else may be the rest of a password."""
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.%a-z]+\]|[^\s:@\[\]=]*)(?::[0-9]{0,5})?[),.;:]*")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
_FIELD = re.compile(
    r"\b([\w-]*(?:passw(?:or)?d|passphrase|user-pw|proxy-pw|pwd|token|secret|api[_-]?key)(?:=|[\"']\s*:\s*))"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&'\"]+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization\s*[:=]\s*(?:\(string\))?\s*\"?\w+\s+|bearer\s+)[^\s,;\"']+", re.IGNORECASE
)


def parse_address(text: str) -> tuple[str, int]:
    """Takes HOST:PORT apart; an IPv6 address stands in brackets, port 0 is any free one.

    Raises:
        SettingsError: It is no address.
    """
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not separator or not host or (":" in host) != bracketed or not (port.isascii() and port.isdigit()):
        raise SettingsError(f"{redact_url(text)!r} is no address: give HOST:PORT, such as 127.0.0.1:8081 or [::1]:8081")
    if int(port) > 65535:
        raise SettingsError(f"{redact_url(text)!r} is no address: ports end at 65535")
    return host, int(port)


def is_url(spec: str) -> bool:
    """Whether a source string is a URL of a scheme that FFmpeg streams from."""
    scheme, separator, _ = spec.partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def redact_url(url: str) -> str:
    """Takes the credentials out of a URL, so that it can be printed and written to files.

    Everything up to the last `@` goes, since an unescaped `#`, `/` or `?` in a password moves what a parser takes for
    the host. So do the values of fields whose names look secret, in the query and in the path, and what follows them
    but for some fields known to be harmless. What cannot be told apart is hidden: a name that says too little does no
    harm.

    Examples:
        >>> redact_url("rtsp://admin:Se#cret1@10.0.0.7:554/ch1?subtype=0")
        'rtsp://***@10.0.0.7:554/ch1?subtype=0'
        >>> redact_url("rtsp://10.0.0.7/user=admin&password=Secret1&channel=1")
        'rtsp://10.0.0.7/user=***&password=***&channel=1'
    """
    scheme, separator, rest = url.partition("://")
    if scheme.lower() in _LOCAL:
        return url
    if not separator:
        return _FIELD.sub(rf"\1{HIDDEN}", re.sub(r"(?:(?<=/)|^)[^/]*:.*@", f"{HIDDEN}@", url))
    if scheme.lower() == "gst":
        try:
            return f"{scheme}://{' '.join(map(redact_property, shlex.split(rest)))}"
        except ValueError:
            return f"{scheme}://..."
    ats = list(_AT.finditer(rest))
    fields = [*filter(None, (_first_secret(rest),)), *(match.span() for match in _FOLDER.finditer(rest))]
    if ats and any(begin < ats[-1].start() for begin, _ in fields):
        return f"{scheme}://{HIDDEN}"  # a field in a password, or an `@` in a field: the host cannot be found
    login = f"{HIDDEN}@" if ats else ""
    rest = rest[ats[-1].end() :] if ats else rest
    host = re.split(r"[/?#;&]|%(?:25)*(?:2f|3f|23)", rest, maxsplit=1, flags=re.IGNORECASE)[0]
    if _HOST.fullmatch(host) is None:
        return f"{scheme}://{login}..."  # a login without a host, for one
    shown = _FOLDER.sub(rf"\g<1>{HIDDEN}", rest).partition("#")[0]
    return f"{scheme}://{login}{_without_fields(shown)}"


def redact_property(token: str) -> str:
    """Takes the credentials out of a part of a GStreamer pipeline, such as `user-pw=...` or `location=rtsp://...`."""
    name, separator, value = token.partition("=")
    if "://" in name or not separator:
        return redact_url(token) if "://" in token else token
    if SECRET.search(name):
        return f"{name}={HIDDEN}"
    return f"{name}={redact_url(value) if '://' in value else _without_fields(value)}"


def redact_text(text: str, urls: Iterable[str] = ()) -> str:
    """Takes the credentials out of a message: those in URLs, and those behind `password=`, `Authorization:` and so on.

    Args:
        text: The message, such as a library's.
        urls: Addresses that may be quoted in it, whole or in parts.
    """
    for url in urls:
        text = PublicUrl.of(url).scrub(text)
    text = _URL.sub(lambda match: match[0] if _is_example(match[0]) else redact_url(match[0]), text)
    return _HEADER.sub(rf"\1{HIDDEN}", _FIELD.sub(rf"\1{HIDDEN}", text))


def _is_example(url: str) -> bool:
    return any(sign in url for sign in _EXAMPLES)


def has_secret(url: str) -> bool:
    """Whether an address or a pipeline holds what must not be shown."""
    shown = redact_text(redact_url(url.replace(HIDDEN, "x")))
    return HIDDEN in shown or shown.endswith("://...")


@dataclass(frozen=True)
class PublicUrl:
    """An address and how it may be shown: made where a source is opened, and used for every message about it.

    Attributes:
        url: The address, which may hold a password.
        shown: Its public form.
        parts: What must not be shown, longest first.
    """

    url: str = field(repr=False)
    shown: str
    parts: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> PublicUrl:
        """Finds what is secret in an address."""
        shown = redact_url(url)
        pieces = re.split(r"[:/?#@&;=,()\s]+|%(?:25)*(?:3a|2f|3f|23|40|26|3b|3d)", url, flags=re.IGNORECASE)
        # A piece of one or two characters would blank out half of a message, and gives next to nothing away.
        hidden = {piece for piece in pieces if len(piece) > 2 and piece.lower() not in shown.lower()}
        hidden |= {text for text in _take_apart(url)[1] if len(text) > 2}
        hidden |= {unquote(piece) for piece in hidden}
        rest = url.partition("://")[2]
        *_, last = [0, *(match.start() for match in _AT.finditer(rest))]
        if last:  # the login as a whole, and the password
            hidden |= {rest[:last], unquote(rest[:last])}
            hidden |= {text for text in (rest[:last].partition(":")[2],) if len(text) > 2}
        return cls(url, shown, tuple(sorted(hidden - {""}, key=len, reverse=True)))

    @property
    def hint(self) -> str:
        """What to mend, where a password seems to hold a character that ends it early; empty otherwise."""
        rest = self.url.partition("://")[2]
        login = rest[: max(match.start() for match in _AT.finditer(rest))] if _AT.search(rest) else ""
        return f"; {ESCAPE_HINT}" if re.search(r"[#/?@]", login) else ""

    def scrub(self, text: str) -> str:
        """A message of a library's without this address's secrets, whether it quotes all of it or a part."""
        text = text.replace(self.url, self.shown)
        for part in self.parts:
            text = text.replace(part, HIDDEN)
        return text


def _first_secret(text: str) -> tuple[int, int] | None:
    """Start of the first field whose name looks secret, and of its value."""
    for match in _NAMED.finditer(text):
        if SECRET.search(unquote(unquote(match["name"]))):
            return match.start(), match.end()
    return None


def _without_fields(text: str) -> str:
    """A text with its first secret field's value hidden, and all after it that is not known to be harmless."""
    return _take_apart(text)[0]


def _take_apart(text: str) -> tuple[str, list[str]]:
    """What `_without_fields` gives, and what it has hidden."""
    found = _first_secret(text)
    if found is None:
        return text, []
    shown, begin, hidden = text[: found[1]] + HIDDEN, found[1], []
    for match in _AFTER.finditer(text, begin):
        hidden.append(text[begin : match.start()])
        begin = match.end()
        shown += match[0] if match["plain"] else f"{match[0]}{HIDDEN}"
    return shown, [*hidden, text[begin:]]
