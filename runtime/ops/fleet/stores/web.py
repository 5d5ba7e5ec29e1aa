"""A web server's answers, and the store that is a folder behind one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from kanoclip.runtime.errors import FleetError, one_line
from kanoclip.runtime.ops.fleet.stores.blobs import BLOCK, IMAGE_LIMIT, BrokenOffError, small_blob
from kanoclip.runtime.ops.fleet.stores.oci import digest_of, read_index
from kanoclip.runtime.system.net import redact_url

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
SMALL_ANSWER_S = 60.0
"""For all of an answer that is a list or a manifest: each byte of it may come in time, and the whole never."""


class Web:
    """Requests to one server."""

    def __init__(self, shown: str) -> None:
        """Opens no connection yet.

        Args:
            shown: What messages call the server.

        Raises:
            FleetError: urllib3 is not installed.
        """
        try:
            import urllib3
        except ImportError:
            raise FleetError(f"{shown} needs urllib3: pip install 'kanoclip-edge[fleet]'") from None
        self._shown = shown
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            # POST is not sent twice; a certificate that is wrong stays wrong.
            retries=urllib3.Retry(
                3, other=0, backoff_factor=0.3, status_forcelist=(502, 503, 504), raise_on_status=False
            ),
        )

    def request(self, method: str, url: str, headers: dict[str, str], body: Any = None) -> BaseHTTPResponse:
        """Sends a request; the answer's body is still to be read.

        Raises:
            FleetError: There is no answer.
        """
        from urllib3.exceptions import HTTPError, MaxRetryError

        try:
            return self._pool.request(
                method, url, headers=headers, body=body, preload_content=False, decode_content=False
            )
        except (HTTPError, OSError, ValueError) as error:
            cause: BaseException = error
            while deeper := (cause.reason if isinstance(cause, MaxRetryError) else None) or cause.__cause__:
                cause = deeper
            raise FleetError(f"{self._shown} does not answer ({one_line(cause)})") from error

    def blocks(self, answer: BaseHTTPResponse) -> Iterator[bytes]:
        """The answer's body.

        Raises:
            BrokenOffError: The connection was lost.
        """
        from urllib3.exceptions import HTTPError

        try:
            yield from answer.stream(BLOCK)
        except (HTTPError, OSError) as error:
            raise BrokenOffError(f"{self._shown}: the connection broke off ({one_line(error)})") from error
        finally:
            answer.close()

    def text(self, answer: BaseHTTPResponse, limit: int) -> bytes:
        """The answer's body, of up to `limit` bytes.

        Raises:
            FleetError: It is longer, or comes byte by byte.
            BrokenOffError: The connection was lost.
        """
        from urllib3.exceptions import HTTPError

        content, deadline = bytearray(), time.monotonic() + SMALL_ANSWER_S
        try:
            while block := answer.read1(BLOCK, decode_content=False):
                content += block
                if len(content) > limit:
                    raise FleetError(f"{self._shown} answers with over {limit >> 10} KiB where little was asked for")
                if time.monotonic() > deadline:
                    raise FleetError(
                        f"{self._shown} takes over {SMALL_ANSWER_S:g} s for a small answer: try again later"
                    )
        except (HTTPError, OSError) as error:
            raise BrokenOffError(f"{self._shown}: the connection broke off ({one_line(error)})") from error
        finally:
            answer.close()
        return bytes(content)


class WebLayout:
    """A folder as `FolderLayout` writes it, behind a web server; see `Store`. Nothing can be pushed to it."""

    def __init__(self, url: str) -> None:
        """Opens no connection yet.

        Raises:
            FleetError: urllib3 is not installed.
        """
        self.shown = redact_url(url)
        self._url = url.rstrip("/")
        self._web = Web(self.shown)

    def image(self, tag: str) -> bytes:
        """See `Store`."""
        return small_blob(self, digest_of(self.shown, self._index(), tag), IMAGE_LIMIT, "image manifest")

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """See `Store`."""
        # Not compressed on the way: what is hashed is what lies there.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        answer = self._web.request("GET", f"{self._url}/blobs/{digest.replace(':', '/')}", headers)
        if answer.status not in (200, 206):
            answer.close()
            raise FleetError(f"{self.shown} answers {answer.status} when asked for {digest}")
        skip = start if answer.status == 200 else 0  # a server that knows no ranges
        for block in self._web.blocks(answer):
            yield block[skip:]
            skip = max(0, skip - len(block))

    def tags(self) -> list[str]:
        """See `Store`."""
        return sorted(self._index())

    def has(self, digest: str, size: int) -> bool:
        """Never asked."""
        self._refuse()

    def put(self, digest: str, size: int, content: BinaryIO) -> None:
        """Always refused."""
        self._refuse()

    def put_image(self, tag: str, image: bytes) -> None:
        """Always refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise FleetError(f"{self.shown} is a web server, to pull from: push to its folder, or to a registry (oci://)")

    def _index(self) -> dict[str, str]:
        answer = self._web.request("GET", f"{self._url}/index.json", {"Cache-Control": "no-cache"})
        content = self._web.text(answer, IMAGE_LIMIT)
        if answer.status != 200:
            raise FleetError(
                f"{self.shown} answers {answer.status} when asked for index.json: it is no store of bundles"
            )
        return read_index(content)
