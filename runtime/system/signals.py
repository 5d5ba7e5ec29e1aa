"""SIGINT and SIGTERM as a clean stop, in a stream and around it, and SIGHUP as a request to read the settings again."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from types import FrameType

from kanoclip.runtime.errors import KanoclipError

GRACE_S = 3.0
"""How long a library's call may hold the main thread up after a signal, before the process ends without it."""


@contextmanager
def stop_on_signals(stop: Callable[[], None], stopping: Callable[[], bool]) -> Iterator[None]:
    """Calls `stop` on SIGINT and SIGTERM while the block lasts; does nothing outside the main thread.

    A SIGINT raises KeyboardInterrupt once `stopping` is true.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and stopping():
            raise KeyboardInterrupt
        stop()

    with _handled(handle, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def error_on_sigterm(message: str) -> Iterator[None]:
    """Makes SIGTERM an error, so that what is half done is taken back; does nothing outside the main thread.

    Args:
        message: What came of it, and how to go on.

    Raises:
        KanoclipError: The signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KanoclipError(message)

    with _handled(stop, signal.SIGTERM):
        yield


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Makes SIGTERM end the process with exit code 0 while no stream runs: before it starts and after its end.

    The block is unwound by SystemExit, by KeyboardInterrupt after SIGINT. Python runs no handler while the main thread
    is inside a library's call, and the building of an engine is one of minutes: after `GRACE_S` the process ends
    without unwinding. SIGHUP is let go by, for settings that are being read anyway, unless there is a terminal to hang
    up. Inside of `stop_on_signals` all this rests. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(os.EX_OK)

    def ours(number: int) -> bool:
        expected = end if number == signal.SIGTERM else signal.default_int_handler
        return signal.getsignal(number) is expected

    unwound = threading.Event()
    mine, its = socket.socketpair()
    mine.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(its, ours, unwound), name="kanoclip-signals", daemon=True)
    let_go = () if has_terminal() else (signal.SIGHUP,)
    with mine, its:
        before = signal.set_wakeup_fd(mine.fileno(), warn_on_full_buffer=False)
        watcher.start()
        try:
            # Not SIG_IGN, which the processes that we start would inherit.
            with _handled(end, signal.SIGTERM), _handled(lambda number, frame: None, *let_go):
                yield
        finally:
            unwound.set()
            signal.set_wakeup_fd(before)
            mine.shutdown(socket.SHUT_RDWR)
            watcher.join(GRACE_S)


def _watch(numbers: socket.socket, ours: Callable[[int], bool], unwound: threading.Event) -> None:
    """A thread that ends the process when the main thread cannot."""
    codes = {int(signal.SIGTERM): os.EX_OK, int(signal.SIGINT): 130}
    with suppress(OSError):
        while received := numbers.recv(64):
            for number in received:
                if number in codes and ours(number) and not unwound.wait(GRACE_S) and ours(number):
                    if number == signal.SIGINT:
                        with suppress(Exception):
                            sys.stderr.write("error: interrupted\n")
                            sys.stderr.flush()
                    os._exit(codes[number])


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Installs a handler while the block lasts."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None stands for a handler that was not installed from Python; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


class Hangup(Enum):
    """What a SIGHUP means."""

    RELOAD = "read the settings again"
    TERMINAL_GONE = "nobody is there any more"


class Hangups:
    """SIGHUPs that came while the block lasts, for a loop to look at. Does nothing outside the main thread.

    One that comes because the terminal that the process was started in has gone is no such request.
    """

    def __init__(self) -> None:
        self._terminal = has_terminal()
        self._came = False
        self._before: ExitStack | None = None

    def __enter__(self) -> Hangups:
        self._before = ExitStack()
        if threading.current_thread() is threading.main_thread():
            self._before.enter_context(_handled(self._handle, signal.SIGHUP))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._before is not None
        self._before.close()

    def next(self) -> Hangup | None:
        """What the SIGHUPs since the last call mean; None where none came."""
        if not self._came:
            return None
        self._came = False
        return Hangup.TERMINAL_GONE if self._terminal and not has_terminal() else Hangup.RELOAD

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True


def has_terminal() -> bool:
    """Whether the process hangs on a terminal, whose closing sends SIGHUP: then that is no request to reload."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
