"""One writer at a time: a lock that goes with its process, however that ends.

The system gives an advisory lock back when the last handle of its file is closed, so that a killed process leaves none.
It holds between processes of one machine, and on network file systems as far as these have locks.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from kanoclip.runtime.errors import KanoclipError

log = logging.getLogger(__name__)

_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


class LockedError(KanoclipError):
    """Another holds the lock; whoever wants it says what that means, and what to do."""


class Lock:
    """A lock, held from its making until `release`. Use as a context manager, too.

    Args:
        path: The lock's file, made when missing. It is no file with content, which would be replaced one day.
        leave: Whether the file stays behind. Without it, nothing is left of the lock.
        wait: Called once where another holds it, which is then waited for; None to raise instead.

    Raises:
        LockedError: Another holds it, in this process or in another one.
        OSError: The file cannot be made.

    Examples:
        >>> with Lock(Path("x.lock")):
        ...     Lock(Path("x.lock"))
        Traceback (most recent call last):
        kanoclip.runtime.system.files.lock.LockedError: x.lock: another holds this lock
        >>> Path("x.lock").exists()
        False
    """

    def __init__(self, path: Path, *, leave: bool = False, wait: Callable[[], None] | None = None) -> None:
        self._path, self._leave = path, leave
        self._file: IO[bytes] | None = None
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                if not take(handle, path):
                    if wait is None:
                        raise LockedError(f"{path}: another holds this lock")
                    wait()
                    wait = _nothing
                    fcntl.flock(handle, fcntl.LOCK_EX)
                # The one before may have removed the file between our opening and locking it.
                if _is_at(handle, path):
                    self._file = os.fdopen(handle, "rb")
                    return
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def release(self) -> None:
        """Gives it back; a second call does nothing."""
        file, self._file = self._file, None
        if file is not None:
            if not self._leave:
                with suppress(OSError):  # while it is held: nobody else can have made a new one
                    self._path.unlink()
            file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class OutputLock:
    """Keeps other writers away from one output file, however often it is moved away, rotated and made anew.

    The lock is a hidden file beside the output, by its resolved name, and stands for the name. Devices and pipes have
    no writers to be held apart. Where the folder takes no new files, there is no lock.

    Args:
        path: The output, whose folder is there.

    Raises:
        LockedError: Another is writing it.
    """

    def __init__(self, path: Path) -> None:
        self._lock: Lock | None = None
        real = Path(os.path.realpath(path))
        if real.exists() and not real.is_file():
            return
        try:
            self._lock = Lock(real.with_name(f".{real.name}.lock"))
        except OSError as error:
            if real.exists():  # else it cannot be written either, which whoever opens it reports
                log.info("%s: cannot be locked (%s); let only one process write it", path, error.strerror)

    def release(self) -> None:
        """Gives it back; a second call does nothing."""
        if self._lock is not None:
            self._lock.release()


def take(handle: int, path: Path | str) -> bool:
    """Locks an open file until it is closed, if no other has; what takes no locks passes.

    Args:
        handle: The file's descriptor.
        path: Names it in a note.

    Returns:
        False where another holds it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.info("%s: cannot be locked (%s); let only one process write there", path, error.strerror)
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _nothing() -> None:
    """Nobody needs to hear twice that another holds it."""
