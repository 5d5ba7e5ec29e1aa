"""The device through pycuda, for JetPacks that cuda-python has no wheels for. Without CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pycuda.driver as driver

from kanoclip.runtime.engines.tensorrt.device import Bytes, DeviceInfo, Wait, driver_version, hang, lost
from kanoclip.runtime.errors import BackendError


class PycudaDevice:
    """See `kanoclip.runtime.engines.tensorrt.device.Device`. Works on the primary context, which TensorRT uses too."""

    captures = False

    def __init__(self, index: int) -> None:
        """Opens GPU `index`.

        Raises:
            BackendError: There is no such GPU, or no driver.
        """
        self.lost = self.hung = False
        self._allocations: list[Any] = []
        self._closed = False
        try:
            driver.init()
            found = driver.Device.count()
            if index >= found:
                raise BackendError(f"there is no GPU {index}, only {found}: choose --device cuda:N with a smaller N")
            device = driver.Device(index)
            self._context = device.retain_primary_context()
            self.info = _describe(device, index)
        except driver.Error as error:
            raise BackendError(f"CUDA cannot use GPU {index}: {error}: check the driver") from error

    def enter(self) -> None:
        """Pycuda's current context belongs to the thread."""
        _do("use the GPU", self._context.push)

    def leave(self) -> None:
        """Takes the context off this thread again."""
        with contextlib.suppress(driver.Error):  # a lost GPU's: the call that met it has said so
            driver.Context.pop()

    def make_stream(self) -> PycudaStream:
        """See `Device.make_stream`."""
        stream = PycudaStream(self)
        self._allocations.append(stream)
        return stream

    def pinned(self, size: int, *, mapped: bool) -> tuple[Bytes, int]:
        """Page-locked memory."""
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        memory = _checked(f"lock {size} bytes of host memory", driver.pagelocked_empty, size, np.uint8, mem_flags=flags)
        self._allocations.append(memory)
        return memory, int(memory.base.get_device_pointer()) if mapped else 0

    def allocate(self, size: int) -> int:
        """Device memory."""
        memory = _checked(f"get {size} bytes of GPU memory", driver.mem_alloc, size)
        self._allocations.append(memory)
        return int(memory)

    def mark(self) -> int:
        """See `Device.mark`."""
        return len(self._allocations)

    def release(self, mark: int) -> None:
        """Newest first. After an error every call fails alike, and nothing more can be done."""
        while len(self._allocations) > mark and not self.hung:
            memory = self._allocations.pop()
            with contextlib.suppress(driver.Error):
                owner: Any = memory.base if isinstance(memory, np.ndarray) else memory
                owner.free()

    def close(self) -> None:
        """Frees everything and gives the context back; when that was its last user, errors go with it."""
        if self._closed or self.hung:
            return
        try:
            self.enter()
            self.release(0)
        except BackendError:
            pass  # the GPU was lost, and its memory with it
        finally:
            self._closed = True
            # pycuda gives a context back where it is the current one, which it is no longer then, or where the thread
            # asks that made it. From any other thread it does nothing, and a lost GPU would stay lost.
            self._context.detach()


class PycudaStream:
    """See `kanoclip.runtime.engines.tensorrt.device.Stream`."""

    def __init__(self, device: PycudaDevice) -> None:
        """Makes a stream.

        Raises:
            BackendError: The GPU has no room for it.
        """
        self._device, self._wait = device, Wait()
        self._stream = _checked("make a stream", driver.Stream, 1)  # CU_STREAM_NON_BLOCKING

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return int(self._stream.handle)

    def free(self) -> None:
        """Gives it back; pycuda does so where the last reference goes."""
        self._stream = None

    def upload(self, target: int, source: Bytes) -> None:
        """Host to device, on the stream."""
        _do("upload", driver.memcpy_htod_async, target, source, self._stream)

    def download(self, target: Bytes, source: int) -> None:
        """Device to host, on the stream."""
        _do("download", driver.memcpy_dtoh_async, target, source, self._stream)

    def synchronize(self) -> None:
        """Waits, not longer than PATIENCE."""
        if not self._wait.until(lambda: bool(_do("a run", self._stream.is_done))):
            self._device.hung = True
            raise hang()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Not with this binding: `captures` says so."""
        raise BackendError("pycuda has no CUDA graphs: install cuda-python")

    def time(self, parts: Sequence[Callable[[], None]]) -> list[float]:
        """See `Stream.time`."""
        events = [_checked("make an event", driver.Event) for _ in range(len(parts) + 1)]
        _do("time a run", events[0].record, self._stream)
        for part, event in zip(parts, events[1:], strict=True):
            part()
            _do("time a run", event.record, self._stream)
        self.synchronize()
        return [float(_do("time a run", before.time_till, after)) for before, after in pairwise(events)]


def _describe(device: Any, index: int) -> DeviceInfo:
    version = driver.get_version()
    return DeviceInfo(
        index=index,
        name=str(device.name()),
        compute_capability="{}.{}".format(*device.compute_capability()),
        cuda_major=int(version[0]),
        driver=driver_version(f"cuda-{driver.get_driver_version()}"),
        integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
        pci=str(device.pci_bus_id()),
    )


def _checked(what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        return call(*arguments, **options)
    except driver.Error as error:
        raise BackendError(f"CUDA cannot {what}: {error}: close other programs on the GPU") from error


def _do(what: str, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except driver.Error as error:
        raise lost(what, str(error)) from error
