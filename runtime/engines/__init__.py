"""Inference engines, chosen once by name."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from functools import partial

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import FLAVOURS
from kanoclip.runtime.engines.base import Backend, Report
from kanoclip.runtime.engines.triton.address import SHAPE, TritonAddress, is_triton
from kanoclip.runtime.errors import BackendError
from kanoclip.runtime.system.installed import installed_versions

BACKENDS = ("auto", "onnxruntime", "onnxruntime-tensorrt", "openvino", "openvino-bf16", *FLAVOURS)
GPU_ONLY = frozenset({"onnxruntime-tensorrt", *FLAVOURS})
CPU_ONLY = frozenset({"openvino", "openvino-bf16"})
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")

log = logging.getLogger(__name__)

__all__ = ["BACKENDS", "DEVICE", "Backend", "Report", "check_backend", "create_backend", "silent"]


def silent(step: str, share: float) -> None:
    """A report that goes nowhere."""


def check_backend(name: str) -> str:
    """The name of a backend, if it is one.

    Raises:
        BackendError: It is neither one of BACKENDS nor the address of a model on a Triton server.
    """
    if is_triton(name):
        TritonAddress.parse(name)
    elif name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}: choose one of {', '.join(BACKENDS)}, {SHAPE}")
    return name


def create_backend(
    bundle: Bundle,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    report: Report = silent,
    workers: int = 1,
    *,
    trial: bool = True,
) -> Backend:
    """Makes the engine that runs a bundle.

    Args:
        bundle: What to run.
        backend: `onnxruntime` (CPU or CUDA provider, by device), `onnxruntime-tensorrt` (ONNX Runtime's TensorRT
            provider), `tensorrt` and `tensorrt-rtx` (the bundle's engine, or one that is built now and saved),
            `openvino` (CPU, float32), `openvino-bf16` (CPU, bfloat16), `triton://HOST[:PORT]/MODEL` (a server's; see
            `triton/address.py` for its options), or `auto`: an engine of the bundle that fits the
            GPU, else `onnxruntime` on the GPU where there is one, else the fastest on this processor, measured once
            (see `autoselect.py`), `openvino-bf16` only after a probe in a process of its own (see `probe.py`).
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: the GPU where the engine has one, else the CPU. A GPU that does not
            start is a warning and `Backend.fallback` then; where its device is named, it is an error.
        threads: CPU threads, None for as many as cores that this process may use.
        report: Called with the progress of an engine's build, which may take minutes.
        workers: How many threads may run it at a time, on the CPU and on a server. Two frames at a time, each on half
            of the threads, give more fps than one after the other, at a higher latency. Elsewhere `Backend.workers`
            stays 1.
        trial: Whether `auto` may measure engines, which takes some seconds once for a bundle and processor.

    Raises:
        BackendError: An unknown name, an engine that is not installed, or a device that it cannot use.
    """
    check_backend(backend)
    if not DEVICE.fullmatch(device):
        raise BackendError(f"unknown device {device!r}: choose auto, cpu, cuda or cuda:N")
    if backend in GPU_ONLY and device == "cpu":
        raise BackendError(f"the backend {backend} needs a GPU: leave --device out, or choose cuda")
    if backend in CPU_ONLY and device.startswith("cuda"):
        raise BackendError(f"the backend {backend} runs on the CPU: leave --device out, or choose cpu")
    if threads is not None and threads < 1:
        raise BackendError(f"{threads} threads cannot run: choose at least 1, or leave it out for all cores")
    if is_triton(backend):
        if device != "auto" or threads is not None:
            raise BackendError("a Triton server decides by itself what it runs on: leave --device and --threads out")
        from kanoclip.runtime.engines.triton.backend import TritonBackend

        return TritonBackend(bundle, TritonAddress.parse(backend), workers)
    if backend == "auto" and device != "cpu" and bundle.manifest.engines:
        from kanoclip.runtime.engines.tensorrt.backend import fitting_flavour

        backend = fitting_flavour(bundle, device) or backend
    if backend in FLAVOURS:
        from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend

        return TensorRtBackend(bundle, backend, device, report)
    if device == "auto" and _has_gpu(backend):
        return _on_gpu_or_cpu(bundle, backend, threads, report, workers)
    if backend == "auto" and not device.startswith("cuda"):
        from kanoclip.runtime.engines.autoselect import choose_backend

        create = partial(create_backend, bundle, device=device, threads=threads, workers=workers)
        return choose_backend(bundle, device, threads, create, workers, trial=trial)
    # Each engine's module is imported only where it is used, and the engine itself only by that module.
    if backend in ("openvino", "openvino-bf16"):
        from kanoclip.runtime.engines.openvino import OpenVinoBackend

        return OpenVinoBackend(bundle, bf16=backend == "openvino-bf16", threads=threads, workers=workers)
    from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend

    tensorrt = backend == "onnxruntime-tensorrt"
    return OnnxRuntimeBackend(bundle, device, tensorrt=tensorrt, threads=threads, workers=workers)


def _has_gpu(backend: str) -> bool:
    """Whether ONNX Runtime, where it is what may run, is one for GPUs; it is imported only where it surely runs."""
    if backend == "auto":
        return bool(installed_versions(("onnxruntime-gpu",)))
    if backend == "onnxruntime":
        from kanoclip.runtime.engines.onnxruntime.backend import has_cuda

        with suppress(BackendError):
            return has_cuda()
    return False


def _on_gpu_or_cpu(bundle: Bundle, backend: str, threads: int | None, report: Report, workers: int) -> Backend:
    """ONNX Runtime on the GPU, or what was asked for on the CPU where the GPU does not start: slow, but it scores."""
    from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend

    try:
        return OnnxRuntimeBackend(bundle, "cuda", tensorrt=False, threads=threads)
    except BackendError as error:
        log.warning("the GPU is not used, and the CPU scores instead: %s", error)
        found = create_backend(bundle, backend, "cpu", threads, report, workers)
        found.fallback = str(error)
        return found
