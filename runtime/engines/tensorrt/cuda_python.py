"""The device through NVIDIA's cuda-python wheels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

try:
    import cuda.bindings.runtime as cudart
except ImportError:  # releases before 12.8
    from cuda import cudart

from kanoclip.runtime.engines.tensorrt.device import (
    Bytes,
    CaptureError,
    DeviceInfo,
    Wait,
    driver_too_old,
    driver_version,
    hang,
    lost,
)
from kanoclip.runtime.errors import BackendError, DeviceLostError

_PCI_LENGTH = 32
"""Bytes that the longest address takes, its end included."""


class CudaPythonDevice:
    """See `kanoclip.runtime.engines.tensorrt.device.Device`."""

    captures = True

    def __init__(self, index: int) -> None:
        """Opens GPU `index`.

        Raises:
            BackendError: There is no such GPU, or no driver.
        """
        self.lost = self.hung = False
        self._frees: list[Callable[[], Any]] = []
        found = int(_checked("look for GPUs", cudart.cudaGetDeviceCount()))
        if index >= found:
            raise BackendError(f"there is no GPU {index}, only {found}: choose --device cuda:N with a smaller N")
        _checked("use the GPU", cudart.cudaSetDevice(index))
        self.info = _describe(index)

    def enter(self) -> None:
        """CUDA's current device belongs to the thread."""
        _do("use the GPU", cudart.cudaSetDevice(self.info.index))

    def leave(self) -> None:
        """Nothing to undo."""

    def make_stream(self) -> CudaPythonStream:
        """See `Device.make_stream`."""
        return CudaPythonStream(self)

    def on_release(self, free: Callable[[], Any]) -> None:
        """Has `release` call something, before what was made earlier is freed."""
        self._frees.append(free)

    def pinned(self, size: int, *, mapped: bool) -> tuple[Bytes, int]:
        """Page-locked memory."""
        flags = cudart.cudaHostAllocMapped if mapped else cudart.cudaHostAllocDefault
        address = int(_checked(f"lock {size} bytes of host memory", cudart.cudaHostAlloc(size, flags)))
        self._frees.append(lambda: cudart.cudaFreeHost(address))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        seen = _checked("map host memory", cudart.cudaHostGetDevicePointer(address, 0)) if mapped else 0
        return memory, int(seen)

    def allocate(self, size: int) -> int:
        """Device memory."""
        address = int(_checked(f"get {size} bytes of GPU memory", cudart.cudaMalloc(size)))
        self._frees.append(lambda: cudart.cudaFree(address))
        return address

    def mark(self) -> int:
        """See `Device.mark`."""
        return len(self._frees)

    def release(self, mark: int) -> None:
        """Newest first. After an error every call fails alike, and nothing more can be done."""
        while len(self._frees) > mark and not self.hung:
            self._frees.pop()()

    def close(self) -> None:
        """Frees everything."""
        self.release(0)
        if self.lost and not self.hung:
            # An error in a kernel stays with the process's context: only a new one can work again.
            cudart.cudaDeviceReset()
            self.lost = False


class CudaPythonStream:
    """See `kanoclip.runtime.engines.tensorrt.device.Stream`."""

    def __init__(self, device: CudaPythonDevice) -> None:
        """Makes a stream.

        Raises:
            BackendError: The GPU has no room for it.
        """
        self._device, self._wait = device, Wait()
        self._stream = _checked("make a stream", cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
        device.on_release(lambda: cudart.cudaStreamDestroy(self._stream))

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return int(self._stream)

    def upload(self, target: int, source: Bytes) -> None:
        """Host to device, on the stream."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        _do("upload", cudart.cudaMemcpyAsync(target, source.ctypes.data, source.nbytes, kind, self._stream))

    def download(self, target: Bytes, source: int) -> None:
        """Device to host, on the stream."""
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _do("download", cudart.cudaMemcpyAsync(target.ctypes.data, source, target.nbytes, kind, self._stream))

    def synchronize(self) -> None:
        """Waits, not longer than PATIENCE."""
        if not self._wait.until(self._is_done):
            self._device.hung = True
            raise hang()

    def _is_done(self) -> bool:
        (status,) = cudart.cudaStreamQuery(self._stream)
        if status not in (cudart.cudaError_t.cudaSuccess, cudart.cudaError_t.cudaErrorNotReady):
            raise lost("a run", _explain(status))
        return bool(status == cudart.cudaError_t.cudaSuccess)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Records a graph. What other threads do meanwhile does not disturb it."""
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            _do("begin a graph", cudart.cudaStreamBeginCapture(self._stream, mode))
            try:
                work()
            finally:  # a stream left in capture is of no use any more
                ended = cudart.cudaStreamEndCapture(self._stream)
            graph = _do("end a graph", ended)
            try:
                launchable = _do("make a graph", cudart.cudaGraphInstantiate(graph, 0))
            finally:
                cudart.cudaGraphDestroy(graph)
        except DeviceLostError as error:
            # CUDA remembers the last error, and whoever asks for it next would take it for its own. If the GPU is lost
            # indeed, the next run fails too.
            cudart.cudaGetLastError()
            raise CaptureError(str(error)) from error
        self._device.on_release(lambda: cudart.cudaGraphExecDestroy(launchable))

        def launch() -> None:
            _do("launch a graph", cudart.cudaGraphLaunch(launchable, self._stream))

        return launch

    def time(self, parts: Sequence[Callable[[], None]]) -> list[float]:
        """See `Stream.time`."""
        mark, events = self._device.mark(), [self._event() for _ in range(len(parts) + 1)]
        _do("time a run", cudart.cudaEventRecord(events[0], self._stream))
        for part, event in zip(parts, events[1:], strict=True):
            part()
            _do("time a run", cudart.cudaEventRecord(event, self._stream))
        self.synchronize()
        spent = [float(_do("time a run", cudart.cudaEventElapsedTime(*pair))) for pair in pairwise(events)]
        self._device.release(mark)
        return spent

    def _event(self) -> Any:
        event = _checked("make an event", cudart.cudaEventCreate())
        self._device.on_release(lambda: cudart.cudaEventDestroy(event))
        return event


def _describe(index: int) -> DeviceInfo:
    attributes = cudart.cudaDeviceAttr
    major, minor, integrated = (
        int(_checked("describe the GPU", cudart.cudaDeviceGetAttribute(attribute, index)))
        for attribute in (
            attributes.cudaDevAttrComputeCapabilityMajor,
            attributes.cudaDevAttrComputeCapabilityMinor,
            attributes.cudaDevAttrIntegrated,
        )
    )
    name = _checked("describe the GPU", cudart.cudaGetDeviceProperties(index)).name
    driver = int(_checked("ask the driver's version", cudart.cudaDriverGetVersion()))
    return DeviceInfo(
        index=index,
        name=_text(name),
        compute_capability=f"{major}.{minor}",
        cuda_major=_cuda_major(),
        driver=driver_version(f"cuda-{driver}"),
        integrated=bool(integrated),
        pci=_text(_checked("describe the GPU", cudart.cudaDeviceGetPCIBusId(_PCI_LENGTH, index))),
    )


def _cuda_major() -> int:
    """Of the CUDA that the binding brings; it needs no driver to tell."""
    _, version = cudart.cudaRuntimeGetVersion()
    return int(version) // 1000


def _checked(what: str, answer: tuple[Any, ...]) -> Any:
    """The value of a call that prepares something.

    Raises:
        BackendError: It failed.
    """
    status, *values = answer
    if status == cudart.cudaError_t.cudaErrorInsufficientDriver:
        raise BackendError(f"CUDA cannot {what}: {driver_too_old(_cuda_major())}")
    if status != cudart.cudaError_t.cudaSuccess:
        raise BackendError(f"CUDA cannot {what}: {_explain(status)}: check the driver with nvidia-smi")
    return values[0] if values else None


def _do(what: str, answer: tuple[Any, ...]) -> Any:
    """The value of a call in the middle of the work.

    Raises:
        DeviceLostError: It failed.
    """
    status, *values = answer
    if status != cudart.cudaError_t.cudaSuccess:
        raise lost(what, _explain(status))
    return values[0] if values else None


def _explain(status: Any) -> str:
    _, text = cudart.cudaGetErrorString(status)
    return _text(text)


def _text(value: bytes | str) -> str:
    """What one version gives as bytes, the other as text, up to the first zero byte."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.partition("\0")[0]
