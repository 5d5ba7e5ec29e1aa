"""The login page, and the session that it begins."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from kanoclip.runtime.service.page.auth.access import SESSION_S, Access
from kanoclip.runtime.service.page.auth.guard import client_address, read_body
from kanoclip.runtime.service.page.options import PageOptions

_SLOT = "<!-- message -->"
_WRONG = '<p class="message" id="message" role="alert">This is not the token. Ask whoever started kanoclip-run.</p>'
_WAIT = '<p class="message" id="message" role="alert">Too many wrong tokens: wait {seconds} s and try again.</p>'


class Login:
    """Begins, renews and ends sessions. A form without any script, so that a password manager knows what to do.

    Args:
        access: Knows tokens and sessions.
        options: Where the page is served.
        cookie: Name of the session's cookie.
        template: The form.
    """

    def __init__(self, access: Access, options: PageOptions, cookie: str, template: Path) -> None:
        self._access, self._cookie, self._secure = access, cookie, options.secure
        self._template = template.read_text(encoding="utf-8")

    async def form(self, request: Request) -> Response:
        """The form; straight to the page for who is in."""
        if request.state.session is not None:
            return RedirectResponse("/", 303)
        return self._page()

    async def enter(self, request: Request) -> Response:
        """Takes a token and gives a session for it."""
        where, throttle = client_address(request.scope), self._access.throttle
        body = await read_body(request)
        # From here on nothing is awaited: no other request can be looked at between the check and the count.
        if not self._access.token_is(_token(body)):
            wait = throttle.wait_s(where)
            if wait > 0:
                seconds = math.ceil(wait)
                return self._page(_WAIT.format(seconds=seconds), 429, {"retry-after": str(seconds)})
            throttle.failed(where)
            return self._page(_WRONG, 401)
        throttle.succeeded(where)
        return self._with_session(RedirectResponse("/", 303))

    async def leave(self, request: Request) -> Response:
        """Ends the session here, and takes the cookie back."""
        self._access.end(request.state.session)
        response = JSONResponse({})
        response.delete_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="strict")
        return response

    async def session(self, request: Request) -> Response:
        """What the page needs to ask for changes; renews a session that has grown old."""
        session = request.state.session
        renew = self._access.wants_renewal(session)
        value, session = self._access.new_session(session) if renew else ("", session)
        response = JSONResponse({"proof": self._access.proof(session), "token": self._access.required})
        return self._with_session(response, value) if renew else response

    def _with_session(self, response: Response, value: str = "") -> Response:
        response.set_cookie(
            self._cookie,
            value or self._access.new_session()[0],
            max_age=SESSION_S,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )
        return response

    def _page(self, message: str = "", status: int = 200, headers: dict[str, str] | None = None) -> Response:
        return HTMLResponse(self._template.replace(_SLOT, message), status, headers)


def _token(body: bytes | None) -> str:
    """The form's token; empty where the body is no such form."""
    try:
        fields = parse_qs((body or b"").decode("utf-8", "replace"), max_num_fields=4)
    except ValueError:  # more fields
        return ""
    return fields.get("token", [""])[0].strip()
