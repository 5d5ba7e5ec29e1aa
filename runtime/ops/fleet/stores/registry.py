"""A store that is an OCI registry, by the distribution API: Docker's, Harbor, GitHub's, a cloud's."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlencode, urljoin, urlsplit

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.errors import FleetError, one_line
from kanoclip.runtime.ops.fleet.stores.blobs import IMAGE_LIMIT
from kanoclip.runtime.ops.fleet.stores.oci import IMAGE_TYPE, absent
from kanoclip.runtime.ops.fleet.stores.web import Web
from kanoclip.runtime.system.files.regular import read_small

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

USER_VARIABLE, PASSWORD_VARIABLE = "KANOCLIP_REGISTRY_USER", "KANOCLIP_REGISTRY_PASSWORD"
_LOOPBACK = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_ANSWER_LIMIT = 1 << 20

_MOST_TAGS, _MOST_PAGES = 100_000, 1000


class Registry:
    """A repository of a registry; see `Store`.

    Credentials are those of `KANOCLIP_REGISTRY_USER` and `KANOCLIP_REGISTRY_PASSWORD`, or what `docker login` or `oras
    login` left in Docker's `config.json`.
    """

    def __init__(self, url: str) -> None:
        """Opens no connection yet.

        Args:
            url: `oci://HOST[:PORT]/REPOSITORY`; without TLS where the host is this machine, or the scheme `oci+http`.

        Raises:
            FleetError: The URL names no repository, or urllib3 is not installed.
        """
        scheme, _, rest = url.partition("://")
        host, _, repository = rest.partition("/")
        if "@" in host:
            raise FleetError(f"credentials do not belong into a URL: set {USER_VARIABLE} and {PASSWORD_VARIABLE}")
        if not host or not _REPOSITORY.fullmatch(repository.rstrip("/")):
            raise FleetError(f"{url} names no repository: oci://HOST/REPOSITORY, in small letters")
        self.shown = f"{scheme}://{host}/{repository.rstrip('/')}"
        self._plain = scheme == "oci+http" or _LOOPBACK.fullmatch(host) is not None
        self._host, self._repository = host, repository.rstrip("/")
        self._base = f"{'http' if self._plain else 'https'}://{host}/v2/{self._repository}"
        self._web = Web(self.shown)
        self._authorization: str | None = None

    def image(self, tag: str) -> bytes:
        """See `Store`."""
        answer = self._request("GET", f"{self._base}/manifests/{tag}", {"Accept": IMAGE_TYPE})
        content = self._web.text(answer, IMAGE_LIMIT)
        if answer.status == 404:
            tags: list[str] = []
            with suppress(FleetError):  # a registry need not list any: the first error is the one that helps
                tags = self.tags()
            raise absent(self.shown, tag, tags)
        self._check(answer, content, f"asked for {tag}", 200)
        return content

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """See `Store`."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        answer = self._request("GET", f"{self._base}/blobs/{digest}", headers)
        if answer.status not in (200, 206):
            self._check(answer, self._web.text(answer, _ANSWER_LIMIT), f"asked for {digest}", 200)
        skip = start if answer.status == 200 else 0  # a registry that knows no ranges
        for block in self._web.blocks(answer):
            yield block[skip:]
            skip = max(0, skip - len(block))

    def tags(self) -> list[str]:
        """See `Store`."""
        found: list[str] = []
        url: str | None = f"{self._base}/tags/list?n=1000"
        seen: set[str] = set()
        while url is not None:
            seen.add(url)
            if len(seen) > _MOST_PAGES or len(found) > _MOST_TAGS:
                raise FleetError(f"{self.shown} lists tags without end: name the one that is wanted")
            answer = self._request("GET", url)
            content = self._web.text(answer, IMAGE_LIMIT)
            self._check(answer, content, "asked for its tags", 200)
            try:
                tags = json.loads(content)["tags"] or []
                if not isinstance(tags, list) or not all(isinstance(tag, str) and is_one_line(tag) for tag in tags):
                    raise ValueError
                found += tags
            except (ValueError, KeyError, TypeError, RecursionError):
                raise FleetError(f"{self.shown} answers with something that is no list of tags") from None
            following = re.match(r"<([^>]*)>", answer.headers.get("Link", ""))
            url = self._own(url, following[1]) if following else None
            if url in seen:
                raise FleetError(f"{self.shown} lists its tags in a circle")
        return sorted(found)

    def has(self, digest: str, size: int) -> bool:
        """See `Store`."""
        answer = self._request("HEAD", f"{self._base}/blobs/{digest}")
        answer.close()
        return answer.status == 200

    def put(self, digest: str, size: int, content: BinaryIO) -> None:
        """See `Store`."""
        answer = self._request("POST", f"{self._base}/blobs/uploads/", body=b"")
        self._check(answer, self._web.text(answer, _ANSWER_LIMIT), "a file is to be pushed", 202)
        url = urljoin(self._base, answer.headers.get("Location", ""))
        url += ("&" if urlsplit(url).query else "?") + urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        # An upload's address may be another host's, which gets no credentials of this one.
        answer = self._request("PUT", url, headers, content, own=urlsplit(url).netloc == self._host)
        self._check(answer, self._web.text(answer, _ANSWER_LIMIT), "a file is pushed", 201)

    def put_image(self, tag: str, image: bytes) -> None:
        """See `Store`."""
        answer = self._request("PUT", f"{self._base}/manifests/{tag}", {"Content-Type": IMAGE_TYPE}, image)
        self._check(answer, self._web.text(answer, _ANSWER_LIMIT), f"{tag} is pushed", 201)

    def _request(
        self, method: str, url: str, headers: dict[str, str] | None = None, body: Any = None, *, own: bool = True
    ) -> BaseHTTPResponse:
        """Sends a request, a second time with a token where the registry wants one."""
        headers = headers or {}
        known = {"Authorization": self._authorization} if own and self._authorization else {}
        answer = self._web.request(method, url, headers | known, body)
        if answer.status != 401 or not own:
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        answer.close()
        self._authorization = self._authorize(challenge)
        if hasattr(body, "seek"):
            body.seek(0)
        return self._web.request(method, url, headers | {"Authorization": self._authorization}, body)

    def _authorize(self, challenge: str) -> str:
        """The header that a challenge asks for.

        Raises:
            FleetError: There are no credentials, or they are wrong.
        """
        kind, _, rest = challenge.partition(" ")
        basic = self._credentials()
        if kind.lower() == "basic":
            if basic is None:
                raise FleetError(
                    f"{self.shown} wants a user: set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or docker login"
                )
            return f"Basic {basic}"
        values = dict(_CHALLENGE.findall(rest))
        realm = values.get("realm", "")
        if kind.lower() != "bearer" or urlsplit(realm).scheme not in (("http", "https") if self._plain else ("https",)):
            raise FleetError(
                f"{self.shown} wants to be logged in to in a way that is not known here ({one_line(kind)})"
            )
        query = {name: values[name] for name in ("service", "scope") if name in values}
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query)
        answer = self._web.request("GET", url, {} if basic is None else {"Authorization": f"Basic {basic}"})
        content = self._web.text(answer, _ANSWER_LIMIT)
        self._check(answer, content, "asked for a token", 200)
        try:
            answered = json.loads(content)
            token = answered.get("token") or answered["access_token"]
            if not isinstance(token, str) or not token.isprintable() or not token.isascii():
                raise ValueError
            return f"Bearer {token}"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise FleetError(f"{self.shown} gives no token") from None

    def _credentials(self) -> str | None:
        """User and password as Basic has them, from the environment or Docker's file."""
        user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
        if user is not None and password is not None:
            return base64.b64encode(f"{user}:{password}".encode()).decode()
        folder = os.environ.get("DOCKER_CONFIG")
        try:
            file = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
            stored = json.loads(read_small(file))["auths"][self._host]["auth"]
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            return None
        return stored if isinstance(stored, str) and stored else None

    def _own(self, base: str, reference: str) -> str:
        """The URL that a registry refers to, if it is the registry's own."""
        try:
            url = urljoin(base, reference)
            if urlsplit(url).netloc == self._host:
                return url
        except ValueError:  # no URL at all
            pass
        raise FleetError(f"{self.shown} sends to another host for its list of tags")

    def _check(self, answer: BaseHTTPResponse, content: bytes, when: str, wanted: int) -> None:
        """Refuses an answer that is not the wanted one, with the registry's own words."""
        if answer.status == wanted:
            return
        try:
            reasons = "; ".join(
                str(error.get("message") or error.get("code")) for error in json.loads(content)["errors"]
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            reasons = ""
        remedy = (
            f": log in with {USER_VARIABLE} and {PASSWORD_VARIABLE}, or docker login"
            if answer.status in (401, 403)
            else ""
        )
        raise FleetError(
            f"{self.shown} answers {answer.status}{f' ({one_line(reasons)})' if reasons else ''} when {when}{remedy}"
        )
