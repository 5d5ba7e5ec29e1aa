"""Which sources may be added by the page: local cameras, and what the operator named when the run was started.

Whoever has the page's token can have this machine open what is allowed here, and nothing else. So there are no files
and folders, which would show what lies on the disk; no `gst://`, whose pipelines can write and run anything; and no
address of the network that the operator did not name, or the page would be a way to reach what only this machine may.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from kanoclip.runtime.errors import SettingsError, SourceError
from kanoclip.runtime.sources.pattern import TEST
from kanoclip.runtime.system.net import redact_url

SCHEMES = frozenset({"rtsp", "rtsps", "rtspt", "http", "https"})
LONGEST = 500
_CAMERA = re.compile(r"[0-9]{1,4}|/dev/video[0-9]{1,3}|/dev/v4l/by-(?:id|path)/[A-Za-z0-9_.:+-]+")
_DIGITS = re.compile(r"[0-9.*]+")


@dataclass(frozen=True)
class NetworkPattern:
    """`rtsp://192.168.1.*`: a scheme, a host with `*`, and where they are given a port and the beginning of a path.

    Attributes:
        scheme: As in the address.
        host: In lower case; a pattern of digits allows addresses only, and no name that begins with them.
        port: None for any.
        path: What the path begins with.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, text: str) -> NetworkPattern:
        """Reads what an operator wrote.

        Raises:
            SettingsError: It is no such pattern, or would allow every host.
        """
        try:
            parts = urlsplit(text)
            found = cls(parts.scheme, parts.hostname or "", parts.port, parts.path)
        except ValueError:
            found = cls("", "", None, "")
        if found.scheme not in SCHEMES or not found.host or "@" in text:
            raise SettingsError(f"--allow-sources {redact_url(text)}: write rtsp://HOST or rtsp://192.168.1.*")
        if not re.search(r"[a-z0-9]", found.host):
            raise SettingsError(f"--allow-sources {text}: this allows every host; name the cameras or their network")
        return found

    def allows(self, url: str) -> bool:
        """Whether an address is one of those meant; user and password do not matter."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if _DIGITS.fullmatch(self.host) and not _is_address(host):
            return False
        return (
            parts.scheme == self.scheme
            and fnmatch.fnmatchcase(host, self.host)
            and self.port in (None, port)
            and parts.path.startswith(self.path)
            and ".." not in parts.path
        )


@dataclass(frozen=True)
class AllowedSources:
    """What may be added.

    Attributes:
        network: Patterns that the operator gave.
    """

    network: tuple[NetworkPattern, ...] = ()

    @classmethod
    def parse(cls, patterns: tuple[str, ...]) -> AllowedSources:
        """Reads the operator's patterns.

        Raises:
            SettingsError: One makes no sense.
        """
        return cls(tuple(NetworkPattern.parse(one) for one in patterns))

    def check(self, spec: str) -> bool:
        """Refuses what may not be added, before anything is opened.

        Args:
            spec: A camera, or an address.

        Returns:
            Whether it is a camera, for `open_stream`.

        Raises:
            SourceError: It may not be added; without its credentials.
        """
        if not spec or len(spec) > LONGEST or not spec.isprintable():
            raise SourceError(f"an address has 1 to {LONGEST} visible characters")
        if _CAMERA.fullmatch(spec):
            return True
        if spec.startswith(TEST) or any(one.allows(spec) for one in self.network):
            return False
        raise SourceError(
            f"{redact_url(spec)} may not be added here: a camera N, /dev/videoN and test:// may, and addresses that "
            "kanoclip-run was started with --allow-sources for"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
