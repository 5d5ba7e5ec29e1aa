"""Who may see the page: tokens, sessions, and proof that a change was asked for by the page itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from kanoclip.runtime.service.page.auth.throttle import Throttle

SESSION_S = 30 * 24 * 3600
RENEWED_AFTER_S = 24 * 3600
"""A display that is looked at every month stays logged in."""
MAX_ENDED = 1 << 16
"""Sessions that were ended and are known; each took the token to begin."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who asks.

    Attributes:
        nonce: Tells sessions apart; empty where no token is needed, and for programs.
        expires: Unix time in seconds.
        program: Came with the token itself in its `Authorization` header, which no browser adds by itself.
    """

    nonce: str
    expires: float
    program: bool = False


class Access:
    """Checks tokens, and makes and checks the sessions' cookies.

    A cookie is `EXPIRES.NONCE.MAC` with a key that is derived from the token: the server stores no session, a restart
    logs nobody out, and another token ends every session. What it does know, until it is restarted, is which sessions
    were ended by logging out. Without a token everybody is in.

    Args:
        token: What a browser has to know; None for no token.
        clock: Unix seconds.
    """

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time) -> None:
        self.required = token is not None
        self.throttle = Throttle()
        self._clock = clock
        self._token_hash = hashlib.sha256((token or "").encode()).digest()
        secret = secrets.token_bytes(32) if token is None else token.encode()
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._key = hmac.new(secret, b"kanoclip page, sessions", "sha256").digest()

    def token_is(self, candidate: str) -> bool:
        """Whether this is the token, in a time that does not depend on how much of it is right."""
        given = hashlib.sha256(candidate.encode("utf-8", "replace")).digest()
        return self.required and hmac.compare_digest(given, self._token_hash)

    def new_session(self, before: Session | None = None) -> tuple[str, Session]:
        """A cookie's value and the session that it stands for; a renewed one ends with the one before it."""
        nonce = before.nonce if before is not None else secrets.token_urlsafe(16)
        session = Session(nonce, int(self._clock()) + SESSION_S)
        return f"{int(session.expires)}.{session.nonce}.{self._mac('session', session)}", session

    def session_of(self, cookie: str | None) -> Session | None:
        """The session that a cookie stands for; None for a forged or old one."""
        if not self.required:
            return Session("", float("inf"))
        expires, _, rest = (cookie or "").partition(".")
        nonce, _, mac = rest.partition(".")
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12:
            return None
        session = Session(nonce, int(expires))
        good = hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac("session", session).encode())
        return session if good and self._clock() < session.expires and not self.ended(session) else None

    def end(self, session: Session) -> None:
        """Ends a session: whoever still has its cookie is out, and so is who has an older one of it."""
        if not session.nonce:
            return
        now = self._clock()
        while self._ended and (len(self._ended) >= MAX_ENDED or next(iter(self._ended.values())) <= now):
            self._ended.popitem(last=False)
        self._ended[session.nonce] = now + SESSION_S

    def ended(self, session: Session) -> bool:
        """Whether its browser has logged out."""
        return session.nonce in self._ended

    def wants_renewal(self, session: Session) -> bool:
        """Whether it is time for a new cookie."""
        return self.required and not session.program and session.expires - self._clock() < SESSION_S - RENEWED_AFTER_S

    def proof(self, session: Session) -> str:
        """What the page must send along with every change; another site can neither read nor guess it."""
        return self._mac("change", session)

    def proves(self, session: Session, given: str) -> bool:
        """Whether a change comes from the page itself."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.proof(session).encode())

    def _mac(self, purpose: str, session: Session) -> str:
        expires = int(session.expires) if session.nonce else 0
        message = f"{purpose}.{expires}.{session.nonce}".encode()
        return base64.urlsafe_b64encode(hmac.new(self._key, message, "sha256").digest()).decode().rstrip("=")
