"""A tensor's memory on both sides: two kinds behind one interface, chosen once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.engines.tensorrt.device import Device, Stream


class Buffer(Protocol):
    """Memory of one input or output, [B, ...] for the largest batch; the first rows are those of a smaller one."""

    @property
    def host(self) -> npt.NDArray[Any]:
        """What the CPU writes or reads."""
        ...

    @property
    def address(self) -> int:
        """What the engine is bound to."""
        ...

    def upload(self, rows: int) -> None:
        """Puts the copy of the first rows to the GPU on the stream."""
        ...

    def download(self, rows: int) -> None:
        """Puts the copy of the first rows from the GPU on the stream."""
        ...


@dataclass(frozen=True)
class PinnedBuffer:
    """A discrete GPU: page-locked host memory, device memory, asynchronous copies between them."""

    stream: Stream
    host: npt.NDArray[Any]
    address: int

    def upload(self, rows: int) -> None:
        """See `Buffer`."""
        self.stream.upload(self.address, _bytes(self.host[:rows]))

    def download(self, rows: int) -> None:
        """See `Buffer`."""
        self.stream.download(_bytes(self.host[:rows]), self.address)


@dataclass(frozen=True)
class MappedBuffer:
    """An integrated GPU (Jetson): both sides see the same memory, and nothing is copied."""

    host: npt.NDArray[Any]
    address: int

    def upload(self, rows: int) -> None:
        """Nothing to do."""

    def download(self, rows: int) -> None:
        """Nothing to do."""


def make_buffer(device: Device, stream: Stream, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Buffer:
    """Memory for one tensor, of the kind that suits the GPU.

    Args:
        device: The GPU.
        stream: What copies between both sides.
        shape: Of the largest batch.
        dtype: Of the tensor.

    Raises:
        BackendError: There is not enough of it.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory, seen = device.pinned(size, mapped=device.info.integrated)
    host = memory.view(dtype).reshape(shape)
    if device.info.integrated:
        return MappedBuffer(host, seen)
    return PinnedBuffer(stream, host, device.allocate(size))


def _bytes(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return rows.reshape(-1).view(np.uint8)
