"""The page's server, in a thread of its own."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import uvicorn
import websockets  # noqa: F401 - uvicorn looks for it when a server starts, which is late to say that it is missing

from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.service.health import Health
from kanoclip.runtime.service.page.app import make_app
from kanoclip.runtime.service.page.auth.guard import MAX_BODY
from kanoclip.runtime.service.page.feed.connections import BoundedHttp
from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.feed.hub import Hub
from kanoclip.runtime.service.page.gallery import Gallery, MemoryGallery
from kanoclip.runtime.service.page.options import PageOptions
from kanoclip.runtime.service.page.snapshot_gallery import SnapshotGallery
from kanoclip.runtime.service.page.teaching.labels import LabelledSet
from kanoclip.runtime.service.shifts.counters import ShiftCounters
from kanoclip.runtime.stream.control.protocol import Control
from kanoclip.runtime.system.files.regular import check_regular, no_password

log = logging.getLogger(__name__)

START_S = 10.0
FINISH_S = 1
"""For requests that are being answered when the page is closed."""
CLOSE_S = 3.0
"""Longest that `close` takes; whoever is still connected then is cut off."""
STALLED_MS = 20_000
"""A peer that takes nothing for so long is gone: the kernel drops it, with what waits to be sent to it."""


class Page:
    """Serves the page until it is closed.

    Args:
        options: Where, and for whom.

    Attributes:
        hub: The sink through which frames reach it.
        url: Where a browser finds it.

    Raises:
        SettingsError: The address cannot be had, or the certificate cannot be used.
    """

    def __init__(self, options: PageOptions) -> None:
        self._options = options
        if options.secure:
            _check_certificate(options)
        self._socket = _listen(options)
        self.url = _url(self._socket, options)
        self._memory = MemoryGallery()
        self.hub = Hub(self._memory)
        self._pool = ThreadPoolExecutor(1, "kanoclip-page-encoder")
        self._teaching = ThreadPoolExecutor(1, "kanoclip-page-teacher")
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._started = threading.Event()

    def start(
        self,
        control: Control,
        *,
        health: Health | None = None,
        metrics: Callable[[], bytes] | None = None,
        snapshots: Path | None = None,
        labels: Path | None = None,
        shifts: ShiftCounters | None = None,
    ) -> None:
        """Serves from now on.

        Args:
            control: The stream, as far as it may be asked and changed.
            health: Answers /healthz and /readyz.
            metrics: Gives /metrics in Prometheus' text format.
            snapshots: Folder that another sink keeps anomalies in; None to keep the last ones in memory.
            labels: Folder for frames that a person labels; None for none.
            shifts: Counts by shift; None for none.

        Raises:
            SettingsError: The server does not start.
        """
        gallery: Gallery = self._memory
        if snapshots is not None:
            self.hub.gallery, gallery = None, SnapshotGallery(snapshots, lambda: control.state().pixel_threshold)
        app = make_app(
            self._options,
            Facts(control, self.hub),
            gallery,
            self._pool,
            teaching=self._teaching,
            labels=None if labels is None else LabelledSet(labels),
            health=health,
            metrics=metrics,
            shifts=shifts,
        )
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http=BoundedHttp,
            ws="websockets-sansio",
            ws_max_size=MAX_BODY,
            ws_per_message_deflate=False,  # images are compressed already
            lifespan="off",
            access_log=False,
            log_config=None,
            # Its errors are what strangers send, a line for each; faults of ours are logged by the guard.
            log_level=logging.CRITICAL,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=FINISH_S,
            ssl_certfile=self._options.tls_cert,
            ssl_keyfile=self._options.tls_key,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="kanoclip-page", daemon=True)
        self._thread.start()
        if not self._started.wait(START_S) or self._error is not None:
            why = one_line(self._error) if self._error is not None else f"nothing happened for {START_S:.0f} s"
            raise SettingsError(f"--serve: the page's server does not start: {why}")

    def close(self) -> None:
        """Ends the server, its connections and its threads, within about `CLOSE_S` seconds."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                log.warning("the page's server does not end: it is left behind")
        for pool in (self._pool, self._teaching):
            pool.shutdown(wait=False, cancel_futures=True)
        self._socket.close()

    def __enter__(self) -> Page:
        """Nothing more: the port is taken already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def _serve(self) -> None:
        """The server's thread."""
        try:
            asyncio.run(self._serve_until_closed())
        except BaseException as error:
            self._error = error
            if self._started.is_set():
                log.warning("the page has ended: %s", one_line(error))
        finally:
            self._started.set()

    async def _serve_until_closed(self) -> None:
        assert self._server is not None
        waiting = asyncio.create_task(self._tell_started())
        await self._server.serve(sockets=[self._socket])
        waiting.cancel()

    async def _tell_started(self) -> None:
        while not (self._server and self._server.started):
            await asyncio.sleep(0.01)
        self._started.set()


def _listen(options: PageOptions) -> socket.socket:
    """A socket that listens already: who connects before the page is started waits for it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"--serve {options.host}: no address of this machine ({error.strerror})") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)  # connections inherit it
        found.bind(address)
        found.listen(64)
        found.setblocking(False)
    except OSError as error:
        found.close()
        where = f"{options.host}:{options.port}"
        remedy = (
            "another program listens there; take another port" if error.errno == errno.EADDRINUSE else error.strerror
        )
        raise SettingsError(f"--serve {where}: {remedy}") from error
    return found


def _url(listener: socket.socket, options: PageOptions) -> str:
    """An address for a person: any address of this machine is shown as its name."""
    host, port = listener.getsockname()[:2]
    named = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"{'https' if options.secure else 'http'}://{f'[{named}]' if ':' in named else named}:{port}/"


def _check_certificate(options: PageOptions) -> None:
    """Refuses a certificate that the server could not use, by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert options.tls_cert is not None
    try:
        check_regular(options.tls_cert, options.tls_key)
        context.load_cert_chain(options.tls_cert, options.tls_key, password=no_password)
    except ssl.SSLError as error:
        hint = "" if options.tls_key else "; --tls-key names the key where it has a file of its own"
        raise SettingsError(
            f"--tls-cert {options.tls_cert}: not a certificate with its key, both PEM ({one_line(error.reason)}){hint}"
        ) from error
    except OSError as error:
        raise SettingsError(f"--tls-cert/--tls-key: {error.filename or options.tls_cert}: {error.strerror}") from error
