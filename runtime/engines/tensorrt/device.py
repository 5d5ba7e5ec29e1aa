"""One GPU's memory, stream and graphs, behind one interface."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import BackendError, DeviceLostError

Bytes = npt.NDArray[np.uint8]
_DRIVER = Path("/proc/driver/nvidia/version")
PATIENCE = 20.0
"""Seconds after which a GPU that has not finished counts as hung: a run takes milliseconds, a first one seconds."""
_NAP = 5e-5
_SPIN = 3e-4
"""Seconds of asking again and again round the expected end: a nap comes back about as late as it is long."""


DRIVERS = {12: 525, 13: 580}
"""Oldest driver by CUDA's major version."""


class CaptureError(BackendError):
    """Work that cannot be recorded as a CUDA graph. It may well run without one."""


@dataclass(frozen=True)
class DeviceInfo:
    """What an engine is tied to.

    Attributes:
        index: CUDA's number of the GPU.
        name: Such as `NVIDIA GeForce RTX 4070`.
        compute_capability: Such as `8.9`.
        cuda_major: Of the CUDA that the binding brings.
        driver: The driver's version.
        integrated: CPU and GPU share one memory, as on a Jetson.
        pci: Where the GPU is, such as `0000:65:00.0`: CUDA's numbers are not those of nvidia-smi. Empty if unknown.
    """

    index: int
    name: str
    compute_capability: str
    cuda_major: int
    driver: str
    integrated: bool
    pci: str = ""


class Stream(Protocol):
    """Work on a GPU, one piece after the other; what is on other streams is computed beside it."""

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        ...

    def upload(self, target: int, source: Bytes) -> None:
        """Copies from pinned to device memory, later."""
        ...

    def download(self, target: Bytes, source: int) -> None:
        """Copies from device to pinned memory, later."""
        ...

    def synchronize(self) -> None:
        """Waits for all that is on it, and not longer than PATIENCE.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: It does not answer; the device is `hung`.
        """
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records what `work` puts on the stream as a CUDA graph; the result launches it.

        Raises:
            CaptureError: It cannot be recorded. The stream is as it was before.
        """
        ...

    def time(self, parts: Sequence[Callable[[], None]]) -> list[float]:
        """Puts parts of a run on the stream, with an event before and after each, and waits for all.

        Returns:
            Milliseconds of each on the GPU.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: It does not answer; the device is `hung`.
        """
        ...


class Device(Protocol):
    """What the backend needs of a GPU. Everything happens on streams that are not the default one.

    Attributes:
        info: Which GPU.
        captures: Whether `Stream.capture` works with this binding.
        lost: Set by whoever saw it fail: `close` then resets what this process has on it.
        hung: It does not answer. Freeing anything would wait for it forever, so nothing is freed any more.
    """

    info: DeviceInfo
    captures: bool
    lost: bool
    hung: bool

    def enter(self) -> None:
        """Makes the GPU current in this thread; before anything else and before each run."""
        ...

    def leave(self) -> None:
        """Undoes `enter`."""
        ...

    def make_stream(self) -> Stream:
        """A stream of its own."""
        ...

    def pinned(self, size: int, *, mapped: bool) -> tuple[Bytes, int]:
        """Page-locked host memory, which the GPU can copy from by itself.

        Args:
            size: Bytes.
            mapped: The GPU reads and writes it where it is.

        Returns:
            The memory as uint8 [size], and its address for the GPU (0 unless mapped).
        """
        ...

    def allocate(self, size: int) -> int:
        """Device memory; its address."""
        ...

    def mark(self) -> int:
        """A place to which `release` goes back."""
        ...

    def release(self, mark: int) -> None:
        """Frees what was made since `mark`, newest first."""
        ...

    def close(self) -> None:
        """Frees everything; safe to call twice and after the GPU was lost."""
        ...


def driver_version(fallback: str) -> str:
    """The kernel driver's own version, which bindings do not tell; `fallback` where it is not written down."""
    try:
        words = _DRIVER.read_text(encoding="utf-8").splitlines()[0].split()
    except (OSError, IndexError, UnicodeDecodeError):
        return fallback
    return next((word for word in words if word[:1].isdigit() and "." in word), fallback)


class Wait:
    """Waits for the GPU, and not longer than PATIENCE; learns how long a run takes.

    It sleeps until shortly before the expected end, then asks without a pause for a moment, then naps. One long wait in
    the driver could not be ended, and a spin all the time would take the core that decodes the camera's next frame.
    """

    def __init__(self) -> None:
        self._expected = 0.0
        """Seconds, as the last runs took; 0 before the first."""

    def until(self, done: Callable[[], bool]) -> bool:
        """Waits.

        Args:
            done: Asks the GPU.

        Returns:
            Whether it finished.
        """
        started = time.monotonic()
        if self._expected > _SPIN:
            time.sleep(self._expected - _SPIN / 2)
        spin_until = time.monotonic() + _SPIN
        while not done():
            now = time.monotonic()
            if now > started + PATIENCE:
                return False
            if now > spin_until:
                time.sleep(_NAP)
        # Shorter at once, longer by and by: a run that another one delayed must not make the next ones sleep.
        took = time.monotonic() - started
        self._expected = min(took, self._expected + (took - self._expected) / 8) if self._expected else took
        return True


def hang() -> BackendError:
    """The error for a GPU that does not answer."""
    return BackendError(
        f"the GPU has not answered for {PATIENCE:.0f} s: see `dmesg | grep -i xid`, restart this program or the machine"
    )


def abandon(*objects: object) -> None:
    """Keeps objects for as long as the process lives: their destructors would wait for a GPU that does not answer."""
    for one in objects:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def driver_too_old(cuda_major: int) -> str:
    """What CUDA's error 35 means for whoever installed this, and what to do.

    Args:
        cuda_major: Of the CUDA that was installed.
    """
    there = driver_version("")
    needed = DRIVERS.get(cuda_major, max(DRIVERS.values()))
    what = f"the driver {there} is" if there else "there is no NVIDIA driver, or one"
    older = [major for major, oldest in DRIVERS.items() if major < cuda_major and _number(there) >= oldest]
    remedy = f"install 'kanoclip-edge[gpu-cu{max(older)}]' in a fresh environment, or " if older else ""
    return f"{what} older than {needed}, which CUDA {cuda_major} needs: {remedy}update the driver"


def _number(version: str) -> int:
    """A driver's first number; where it is not known, one that no CUDA is content with."""
    first = version.partition(".")[0]
    return int(first) if first.isdecimal() else 0


def lost(what: str, reason: str) -> DeviceLostError:
    """The error for a GPU that failed in the middle of the work."""
    return DeviceLostError(
        f"the GPU failed in {what} ({reason}): see `dmesg | grep -i xid` or nvidia-smi; a reset or reboot may be needed"
    )


def platform_name() -> str:
    """Operating system and architecture of an engine: `linux-x86_64`, `linux-aarch64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{'x86_64' if machine == 'amd64' else machine}"
