"""A process of its own in which an engine shows that it runs, before this process relies on it.

What an engine's native code does wrong may end the process, and no handler of Python's stands in between.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.errors import BackendError, one_line

PROBED = frozenset({"openvino-bf16"})
"""Engines whose kernels differ by processor more than they could be tested: they are probed, the others are not."""
TIMEOUT_S = 120.0
"""How long a probe may take from where its outcome is waited for."""

# The child imports from where this process does. `-m` would look for modules in the working folder first.
_CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split({separator!r}); "
    "from kanoclip.runtime.engines.probed import main; main(sys.argv[1:])"
)


class Probe:
    """A process that loads an engine and runs the bundle's images on it, beside what this process does."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts it.

        Args:
            command: Such as `command_for` makes. It exits with 0, or says in its last line what is wrong.
        """
        self._process: subprocess.Popen[str] | None = None
        self._refusal = ""
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:  # no more processes, or none are allowed here
            self._refusal = one_line(error)

    def wait(self) -> None:
        """Waits for its end.

        Raises:
            BackendError: The engine does not run here; the message says how it ended.
        """
        if self._process is None:
            raise BackendError(f"no process can be started to probe it ({self._refusal})")
        try:
            output, _ = self._process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise BackendError(f"the process that probed it did not end within {TIMEOUT_S:.0f} s") from None
        finally:
            self.close()
        code = self._process.returncode
        if code < 0:
            raise BackendError(f"the process that probed it died of {_signal_name(-code)}")
        if code:
            lines = output.strip().splitlines()
            raise BackendError(
                one_line(lines[-1]) if lines else f"the process that probed it ended with exit code {code}"
            )

    def close(self) -> None:
        """Ends the process where it still runs; harmless when repeated."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def command_for(bundle: Bundle, name: str, device: str, threads: int | None, workers: int) -> list[str]:
    """The command of a probe.

    Args:
        bundle: What to run.
        name: Of the engine, as `create_backend` takes it; so are the others.
        device: Such as `cpu`.
        threads: None for all cores of this process.
        workers: How many threads may run it at a time.
    """
    script = _CHILD.format(separator=os.pathsep)
    options = [str(bundle.root), name, device, str(threads or 0), str(workers)]
    return [sys.executable or "", "-c", script, os.pathsep.join(sys.path), *options]


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
