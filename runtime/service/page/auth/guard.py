"""What stands before every request: names, origins, sessions and the headers that keep other sites out."""

from __future__ import annotations

import ipaddress
import logging
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kanoclip.runtime.errors import one_line
from kanoclip.runtime.service.page.auth.access import Access, Session
from kanoclip.runtime.service.page.options import PageOptions, is_loopback

log = logging.getLogger(__name__)

MAX_BODY = 4096
LIVE_PATH = "/api/live"
PROOF_HEADER = "x-kanoclip-proof"
OPEN_PATHS = frozenset({"/login", "/healthz", "/readyz"})
OPEN_FOLDER = "/static/"
"""Style and scripts hold no secret: they are in the public package."""
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Lets through what the page itself, or a program with the token, asks for.

    - The `Host` header must name this machine, or a site could make its own name point here (DNS rebinding).
    - Changes and the live connection must come from the page's own origin; changes also carry a proof that only the
      page can read.
    - Where there is a token, everything but the login page, its style and the health checks needs a session or the
      token as `Authorization: Bearer`.

    Args:
        app: What is guarded.
        options: Where it is served.
        access: Knows tokens and sessions.
    """

    def __init__(self, app: ASGIApp, options: PageOptions, access: Access) -> None:
        self._app, self._access = app, access
        self._names = options.allow_hosts | {options.host.lower()}
        self._local = is_loopback(options.host)
        if self._local:
            self._names |= {"localhost"}
        else:
            name = socket.gethostname().lower()
            self._names |= {name, name.partition(".")[0], f"{name.partition('.')[0]}.local"}
        self.cookie_name = cookie_name(options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks a request before it is answered."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is not None:
                await _refuse_websocket(scope, refusal, receive, send)
            else:
                await self._guarded(scope, self._until_logged_out(scope, receive, send), _with_headers(send))
            return
        await self._guarded(scope, receive, _with_headers(send), refusal or self._app)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, app: ASGIApp | None = None) -> None:
        """Answers; a fault of ours is a line in the log, and a client that is cut off is none."""
        try:
            await (app or self._app)(scope, receive, send)
        except ClientDisconnect:
            pass
        except Exception as error:
            log.warning("%s of the page failed: %s: %s", scope["path"], type(error).__name__, one_line(error))

    def _until_logged_out(self, scope: Scope, receive: Receive, send: Send) -> Receive:
        """What comes over a live connection, which ends with its session."""
        session: Session = scope["state"]["session"]

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and self._access.ended(session):
                await send({"type": "websocket.close", "code": 1008, "reason": "logged out"})
                return {"type": "websocket.disconnect", "code": 1008, "reason": "logged out"}
            return message

        return receiving

    def _refusal(self, scope: Scope) -> Response | None:
        """Why a request is not let through; None where it is. Puts its session into the scope."""
        headers = Headers(scope=scope)
        if any(not one.isprintable() for one in scope["path"]):
            return PlainTextResponse("Control characters are part of no address here.\n", 400)
        if not self._named(headers.getlist("host")):
            return PlainTextResponse(
                "This page is not served under that name. If the name is right, start with --allow-host NAME.\n", 421
            )
        session = self._session(scope, headers)
        if isinstance(session, Response):
            return session
        scope.setdefault("state", {})["session"] = session
        if scope["type"] == "websocket":
            if scope["path"] != LIVE_PATH:
                return JSONResponse({"error": "no live connection is here"}, 404)
            if session is None:
                return JSONResponse({"error": "a token is needed"}, 401, {"www-authenticate": "Bearer"})
            return None if _same_origin(headers) else JSONResponse({"error": "this comes from another site"}, 403)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("Only GET and POST.\n", 405)
        path = scope["path"]
        if session is None and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            if path == "/" and scope["method"] == "GET":
                return RedirectResponse("/login", 303)
            return JSONResponse({"error": "a token is needed"}, 401, {"www-authenticate": "Bearer"})
        if scope["method"] == "POST":
            return self._change_refused(scope, headers, session)
        return None

    def _named(self, hosts: list[str]) -> bool:
        """Whether a request was meant for this page. The port may be a tunnel's."""
        if len(hosts) != 1:
            return False
        try:
            name = (urlsplit(f"//{hosts[0]}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Nobody can make an address point elsewhere; but one that is not ours has no business on loopback.
        return address.is_loopback or not self._local

    def _session(self, scope: Scope, headers: Headers) -> Session | Response | None:
        """Who asks; a refusal for a wrong token."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self._access.required and scheme.lower() == "bearer":
            if self._access.token_is(token.strip()):
                return Session("", float("inf"), program=True)
            where = client_address(scope)
            wait = self._access.throttle.wait_s(where)
            if wait > 0:
                return JSONResponse({"error": "too many wrong tokens"}, 429, {"retry-after": str(int(wait) + 1)})
            self._access.throttle.failed(where)
            return JSONResponse({"error": "wrong token"}, 401, {"www-authenticate": "Bearer"})
        return self._access.session_of(_cookie(headers, self.cookie_name))

    def _change_refused(self, scope: Scope, headers: Headers, session: Session | None) -> Response | None:
        """Whether something else than the page itself asks for a change."""
        if session is not None and session.program:
            return None
        if not _same_origin(headers):
            return JSONResponse({"error": "this comes from another site"}, 403)
        if scope["path"] == "/login":
            return None
        if session is None or not self._access.proves(session, headers.get(PROOF_HEADER, "")):
            return JSONResponse({"error": "the page is out of date: load it again"}, 403)
        return None


def client_address(scope: Scope) -> str:
    """Whom wrong tokens are counted against; a reverse proxy's is one for all behind it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def cookie_name(options: PageOptions) -> str:
    """One for each port: browsers give a machine's cookies to all of them."""
    return f"__Host-kanoclip-{options.port}" if options.secure else f"kanoclip-{options.port}"


async def read_body(request: Request, most: int = MAX_BODY) -> bytes | None:
    """A request's body; None for one of more bytes than `most`, of which no more is read."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            return None
    return body


def _same_origin(headers: Headers) -> bool:
    """Whether the page itself asks. Browsers say so for every change and every WebSocket, and no site can alter it."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    try:
        origin = urlsplit(headers.get("origin", ""))
    except ValueError:  # no URL at all, such as http://[
        return False
    return origin.netloc.lower() == headers.get("host", "").lower() != ""


async def _refuse_websocket(scope: Scope, refusal: Response, receive: Receive, send: Send) -> None:
    """Answers a handshake that is refused, with its reason where the server can."""
    if "websocket.http.response" in scope.get("extensions", {}):
        await refusal(scope, receive, _with_headers(send))
    else:
        await send({"type": "websocket.close", "code": 1008})  # answered by 403


def _cookie(headers: Headers, name: str) -> str | None:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
