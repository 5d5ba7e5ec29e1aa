"""A browser's part at the page: it asks for images and takes them as they come."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from websockets.sync.client import connect
from websockets.typing import Origin

ANSWER_S = 10.0
_REQUEST = json.dumps({"stream": "", "pictures": True, "span": 60})


@contextmanager
def watching(port: int) -> Iterator[list[int]]:
    """Looks at the page on a loopback port while the block lasts, and comes again when it is thrown out.

    Yields:
        A list of one number: the images that came so far.
    """
    shown, done = [0], threading.Event()

    def look() -> None:
        while not done.is_set():
            with suppress(Exception):
                _look(port, shown, done)
            done.wait(1)

    thread = threading.Thread(target=look, name="page-client", daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        done.set()
        thread.join(2 * ANSWER_S)


def _look(port: int, shown: list[int], done: threading.Event) -> None:
    """One connection, until it ends or is no longer wanted."""
    address = f"127.0.0.1:{port}"
    with connect(f"ws://{address}/api/live", origin=Origin(f"http://{address}"), max_size=1 << 26, proxy=None) as page:
        while not done.is_set():
            page.send(_REQUEST)
            message = page.recv(timeout=ANSWER_S)
            assert isinstance(message, bytes)
            (length,) = struct.unpack_from("<I", message)
            shown[0] += "picture" in json.loads(message[4 : 4 + length])
