"""`triton://HOST[:PORT]/MODEL[/VERSION][?timeout=S&wait=S]`: a model on a server, as a backend's name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from kanoclip.runtime.errors import BackendError
from kanoclip.runtime.system.net import redact_url

SCHEMES = ("triton", "tritons")
SHAPE = "triton://HOST[:PORT]/MODEL"
DEFAULT_PORT = 8001
_MODEL = re.compile(r"/(?P<model>[A-Za-z0-9][A-Za-z0-9_.-]*)(?:/(?P<version>[1-9]\d*))?/?")


@dataclass(frozen=True)
class TritonAddress:
    """Where a model is served.

    Attributes:
        host: Name or address; an IPv6 one without brackets.
        port: Of gRPC.
        model: Its name on the server.
        version: One version; empty for what the server takes.
        tls: Encrypted, and the server's certificate is checked (`tritons://`).
        timeout_s: For one answer.
        wait_s: For a server that is away or busy, before the run ends; at the start as well.
    """

    host: str
    port: int
    model: str
    version: str = ""
    tls: bool = False
    timeout_s: float = 10.0
    wait_s: float = 20.0

    @property
    def target(self) -> str:
        """Host and port as gRPC takes them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        version = f"/{self.version}" if self.version else ""
        return f"triton{'s' if self.tls else ''}://{self.target}/{self.model}{version}"

    @classmethod
    def parse(cls, text: str) -> TritonAddress:
        """Reads an address.

        Raises:
            BackendError: It is none; the message says what is wrong.
        """
        try:
            parts = urlsplit(text)
            port = parts.port or DEFAULT_PORT
        except ValueError:  # its words quote the part at fault, which may be a password
            raise BackendError(f"{redact_url(text)!r} is no address of a Triton server: {SHAPE}") from None
        if "@" in parts.netloc:
            raise BackendError("a Triton server takes no user or password in its address: leave them out")
        path = _MODEL.fullmatch(parts.path)
        if parts.scheme not in SCHEMES or not parts.hostname or path is None or parts.fragment:
            raise BackendError(f"{redact_url(text)!r} is no address of a Triton server: {SHAPE}")
        waits = {"timeout": cls.timeout_s, "wait": cls.wait_s}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in waits:
                raise BackendError(f"{redact_url(text)!r} has an unknown option {name!r}: there are {', '.join(waits)}")
            if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value) or (name == "timeout" and not float(value)):
                raise BackendError(f"{redact_url(text)!r}: {name}={value!r} is no number of seconds")
            waits[name] = float(value)
        version = path["version"] or ""
        tls = parts.scheme == "tritons"
        return cls(parts.hostname, port, path["model"], version, tls, waits["timeout"], waits["wait"])


def is_triton(backend: str) -> bool:
    """Whether a backend's name is meant as a server's address."""
    return backend.partition("://")[0] in SCHEMES and "://" in backend
