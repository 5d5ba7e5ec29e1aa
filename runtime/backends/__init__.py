"""Inference engines, chosen once by name."""

from __future__ import annotations

import re

from kanoclip.runtime.backends.base import Backend
from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.errors import BackendError

BACKENDS = ("auto", "onnxruntime", "onnxruntime-tensorrt")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

__all__ = ["BACKENDS", "DEVICE", "Backend", "create_backend"]


def create_backend(bundle: Bundle, backend: str = "auto", device: str = "auto", threads: int | None = None) -> Backend:
    """Makes the engine that runs a bundle.

    Args:
        bundle: What to run.
        backend: `onnxruntime` (CPU or CUDA provider, by device), `onnxruntime-tensorrt` (ONNX Runtime's TensorRT
            provider), or `auto`, which is `onnxruntime`.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: the GPU where the engine has one, else the CPU.
        threads: CPU threads, None for as many as cores that this process may use.

    Raises:
        BackendError: An unknown name, an engine that is not installed, or a device that it cannot use.
    """
    from kanoclip.runtime.backends.onnxruntime import OnnxRuntimeBackend

    if backend not in BACKENDS:
        raise BackendError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    if not DEVICE.fullmatch(device):
        raise BackendError(f"unknown device {device!r}: choose auto, cpu, cuda or cuda:N")
    if backend == "onnxruntime-tensorrt" and device == "cpu":
        raise BackendError("the backend onnxruntime-tensorrt needs a GPU: leave --device out, or choose cuda")
    return OnnxRuntimeBackend(bundle, device, tensorrt=backend == "onnxruntime-tensorrt", threads=threads)
