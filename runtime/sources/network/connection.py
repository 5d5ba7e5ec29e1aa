"""One opening of a live source, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import Source
from kanoclip.runtime.system.net import redact_text
from kanoclip.runtime.system.queues import Mailbox, MailboxClosedError, MailboxEmptyError, Policy
from kanoclip.runtime.types import BadFrame, Frame


class ConnectionStalledError(Exception):
    """Nothing came in the time allowed."""


class Connection:
    """Opens a source, reads it and closes it, all in one thread.

    A driver or library may never come back from a read, and nothing can be done about that from outside. So whoever
    waits for the frames waits no longer than they want, and leaves: the thread then ends as soon as it can, closing
    what it had opened, and what it reads until then goes nowhere.

    Args:
        open: Makes the source.
        opened: One that is open already; `open` is not called then.
    """

    def __init__(self, open: Callable[[], Source], opened: Source | None = None) -> None:
        self.source = opened
        self.since = time.monotonic()
        self.delivered = 0
        self._open = open
        self._error: BaseException | None = None
        self._left = threading.Event()
        # One frame, and its reader waits: what is lost on the way is for the stream to decide and to count.
        self._frames: Mailbox[Frame | BadFrame] = Mailbox(1, Policy.WAIT)
        self._thread = threading.Thread(target=self._read, name="kanoclip-connection", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread has yet to end."""
        return self._thread.is_alive()

    def take(self, timeout: float | None) -> Frame | BadFrame | None:
        """Takes the next frame.

        Args:
            timeout: Seconds to wait for it; None waits for as long as it takes.

        Returns:
            The frame; None at the source's end, or once it was left.

        Raises:
            ConnectionStalledError: It did not come in time.
            SourceError: The source could not be opened, or failed.
            Exception: Anything else that the source raised, which is a defect.
        """
        try:
            frame = self._frames.get(timeout)
        except MailboxEmptyError:
            raise ConnectionStalledError from None
        except MailboxClosedError:
            if self._error is not None and not self._left.is_set():
                raise self._error from None
            return None
        self.delivered += 1
        return frame

    def leave(self) -> None:
        """Tells the thread to end; does not wait for it. May be called from any thread."""
        self._left.set()
        self._frames.abort()
        source = self.source
        if source is not None:
            source.interrupt()

    def join(self, timeout: float) -> None:
        """Waits for the thread's end, for so many seconds at most."""
        self._thread.join(timeout)

    def _read(self) -> None:
        try:
            if self.source is None:
                self.source = self._open()
            try:
                if not self._left.is_set():
                    for frame in self.source.frames():
                        self._frames.put(frame)
            finally:
                self.source.close()
        except MailboxClosedError:
            pass  # left
        except OSError as error:
            self._error = SourceError(f"{self.source.name if self.source else 'source'}: {redact_text(str(error))}")
        except BaseException as error:
            self._error = error
        finally:
            self._frames.close()
