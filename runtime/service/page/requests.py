"""What a browser sends, checked; and whom a change is logged with."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from kanoclip.runtime.service.page.auth.guard import MAX_BODY, client_address, read_body


class MissingError(Exception):
    """There is no such thing."""


class BadRequestError(Exception):
    """A body that is not what the page sends."""


def who(request: Request) -> str:
    """Who asks, for the log."""
    return f"page, {client_address(request.scope)}"


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


async def values_of(request: Request, known: set[str], most: int = MAX_BODY) -> dict[str, Any]:
    """A JSON object with known keys.

    Args:
        request: Whose body it is.
        known: All keys that it may have.
        most: Bytes.

    Raises:
        BadRequestError: It is something else.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise BadRequestError("send JSON")
    body = await read_body(request, most)
    if body is None:
        raise BadRequestError("that is too long")
    try:
        values = json.loads(body, parse_constant=_no_number)
        json.dumps(values, ensure_ascii=False).encode()  # lone surrogates are no text
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not set(values) <= known:
        raise BadRequestError(f"send a JSON object with {', '.join(sorted(known)) or 'nothing in it'}")
    return values
