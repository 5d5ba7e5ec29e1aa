"""A `gst-launch-1.0` process whose last element writes into a pipe that we read."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from kanoclip.runtime.errors import SourceError, SourceRefusedError

TOOL = "gst-launch-1.0"
PACKAGES = "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
CLOSE_GRACE_S = 2.0
"""How long the tool may take to put a pipeline down before it is killed."""

_LOOK_S = 0.2
_PIPE_BYTES = 1 << 20  # what Linux grants to anyone; the default of 64 KiB means a hundred wake-ups for a 1080p frame
_ERROR = re.compile(r"ERROR\b|WARNING: erroneous pipeline")
_HINT = re.compile(r"error|fail|cannot|could not|no cameras", re.IGNORECASE)
_LIVE, _FROM_FILE = "Pipeline is live", "Pipeline is PREROLLING"

# The kernel kills the child when we die, however that happens: SIGKILL leaves no time for anything else. Asking for it
# between fork and exec (`preexec_fn`) may deadlock in a process with threads, hence a program in between. Its last
# test covers a parent that died before the request.
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class StalledError(Exception):
    """Nothing came in the time allowed, or whoever waits was interrupted."""


class GstLaunch:
    """Runs a pipeline; there is no shell anywhere, so nothing in it is expanded.

    Args:
        name: What to call it in messages.
        pipeline: Elements, properties and `!`, one argument each; `fdsink` with our pipe comes after them.

    Raises:
        SourceError: The tool is not installed or cannot be started.
    """

    def __init__(self, name: str, pipeline: Sequence[str]) -> None:
        tool = shutil.which(TOOL)
        if tool is None:
            raise SourceRefusedError(f"{name}: {TOOL} is not installed: apt-get install {PACKAGES}")
        read_end, write_end = os.pipe()
        self._pipe = open(read_end, "rb", buffering=0)  # noqa: SIM115, PTH123 - closed by `close`
        _widen(read_end)
        self._poll = select.poll()
        self._poll.register(read_end, select.POLLIN)
        self._started, self._reaped = threading.Event(), threading.Event()
        self._interrupted = threading.Event()
        self._reported_live: bool | None = None
        self._error = self._hint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._refusal: Exception | None = None
        command = [tool, *pipeline, "!", "fdsink", f"fd={write_end}"]
        # The kernel counts the death of the thread that started a child as the parent's, so that thread must live as
        # long as the child: it is the one that reads what the child says.
        self._thread = threading.Thread(target=self._attend, args=(command, write_end), daemon=True)
        self._thread.start()
        self._started.wait()
        os.close(write_end)  # from here on only the child holds it, and its death is the end of the stream
        if self._process is None:
            self._pipe.close()
            raise SourceError(f"{name}: {tool} cannot be started ({self._refusal})")

    @property
    def live(self) -> bool:
        """Whether the pipeline says that it is fed by a clock and not by files; True while it has said nothing."""
        deadline = time.monotonic() + 0.5  # it says so before it delivers, but on another pipe
        while self._reported_live is None and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._reported_live is not False

    @property
    def complaint(self) -> str:
        """The line in which the tool said what is wrong; empty when it said nothing.

        The first error is the cause; later ones, such as "pipeline doesn't want to preroll", only follow from it.
        """
        return self._error or self._hint

    def fill(self, view: memoryview, deadline: float) -> int:
        """Reads until a buffer is full.

        Args:
            view: Bytes to fill.
            deadline: On `time.monotonic`'s clock.

        Returns:
            Bytes read, fewer than asked for only at the end of the stream.

        Raises:
            StalledError: The deadline passed, or `interrupt` was called.
        """
        done = 0
        while done < len(view):
            while not self._poll.poll(max(0.0, min(_LOOK_S, deadline - time.monotonic())) * 1e3):
                if self._interrupted.is_set() or time.monotonic() >= deadline:
                    raise StalledError
            count = self._pipe.readinto(view[done:])
            if not count:
                break
            done += count
        return done

    def interrupt(self) -> None:
        """Has `fill` wait no longer; may be called from any thread."""
        self._interrupted.set()

    def finish(self) -> int:
        """Waits for a process whose stream has ended; kills it if it does not end.

        Returns:
            Its exit code, negative for a signal.
        """
        process = self._running()
        try:
            code = process.wait(CLOSE_GRACE_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            code = process.wait()
        self._reaped.set()
        self._thread.join(CLOSE_GRACE_S)
        return code

    def close(self) -> None:
        """Ends the process and all that it started; harmless when repeated."""
        if self._pipe.closed:
            return
        if self._running().returncode is None:
            self._interrupted.clear()
            # An interrupt lets the tool shut the camera properly: Jetson's camera service may refuse the next client
            # after a kill. Reading on unblocks a writer.
            self._signal(signal.SIGINT)
            if not self._discard(time.monotonic() + CLOSE_GRACE_S):
                self._signal(signal.SIGKILL)
            self.finish()
        self._pipe.close()

    def _attend(self, command: Sequence[str], write_end: int) -> None:
        """Thread: starts the child, reads what it says, stays until it has ended."""
        tied = sys.platform == "linux" and bool(sys.executable)
        prefix = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid())] if tied else []
        try:
            process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                start_new_session=True,  # a group of its own: Ctrl-C goes to us alone, and we end the whole group
                restore_signals=False,  # SIGPIPE stays ignored: a broken pipe is an error, and the camera is shut
                env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},  # its words are read below
            )
        except OSError as error:
            self._refusal = error
            self._started.set()
            return
        self._process = process
        self._started.set()
        with process.stdout or open(os.devnull, "rb") as output:  # noqa: PTH123
            for raw in iter(lambda: output.readline(4096), b""):
                self._hear(" ".join(raw.decode("utf-8", "replace").split()))
        self._reaped.wait()

    def _hear(self, line: str) -> None:
        """Keeps what matters of a line that the tool printed."""
        if line.startswith((_LIVE, _FROM_FILE)):
            self._reported_live = line.startswith(_LIVE)
        elif not self._error and _ERROR.match(line):
            self._error = line
        elif _HINT.search(line):
            self._hint = line

    def _discard(self, deadline: float) -> bool:
        """Reads to the end of the stream; False when it did not come in time."""
        scrap = memoryview(bytearray(_PIPE_BYTES))
        with suppress(StalledError):
            while self.fill(scrap, deadline) == len(scrap):
                pass
            return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child's group, which keeps its number until the child is waited for."""
        process = self._running()
        if process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process


def _widen(descriptor: int) -> None:
    """Asks for a larger pipe, where the system has that."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
