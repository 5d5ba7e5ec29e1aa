"""ONNX Runtime: the CPU, CUDA and TensorRT providers, by name and never by silent fallback."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import logging
import os
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import EXACT
from kanoclip.runtime.bundle.manifest.signature import BATCH, ROWS, TensorSpec
from kanoclip.runtime.engines.base import FetchingBackend, check_signature, cut_for_distances, gpu_index
from kanoclip.runtime.engines.inputs import Floats, Inputs
from kanoclip.runtime.engines.onnxruntime.binding import DeviceTensors
from kanoclip.runtime.engines.tensorrt.device import driver_too_old
from kanoclip.runtime.errors import BackendError, one_line
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.system.installed import keep_onnxruntime_silent
from kanoclip.runtime.system.once import Once
from kanoclip.runtime.system.paths import cache_folder

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
BOTH_INSTALLED = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: uninstall both, keep one"
_GRAPHS = {CUDA: "enable_cuda_graph", TENSORRT: "trt_cuda_graph_enable"}
"""Each provider's option for a CUDA graph."""
_LEFT_OUT: dict[str, dict[str, list[str]]] = {
    "int8-cpu": {"disabled_optimizers": ["MatMulAddFusion"]},
    "int8": {"disabled_optimizers": ["WeightBiasQuantization"]},
}
"""Rewrites that quantised graphs are spared on the CPU. `int8-cpu`: ONNX Runtime makes a Gemm of each product with a
bias before it looks for quantised ones, and has no quantised Gemm with a float bias: it would convert those to float32
and multiply them so, run by run. `int8`: it quantises a convolution's float16 bias by itself, with wrong results
(1.32)."""
SHORT = {CPU: "cpu", CUDA: "cuda", TENSORRT: "tensorrt"}
_REMEDIES = {
    CUDA: "install 'kanoclip-edge[gpu-cu12]' or [gpu-cu13] in a fresh environment, which bring CUDA and cuDNN",
    TENSORRT: "it wants TensorRT 10 of its own CUDA: install 'kanoclip-edge[gpu-cu12]' or [gpu-cu13], or choose "
    "--backend tensorrt",
}
_TF32 = "NVIDIA_TF32_OVERRIDE"
"""Variable by which NVIDIA's libraries leave TF32 out where 0: the provider has no option for it."""
_DRIVER_TOO_OLD = "CUDA failure 35"

log = logging.getLogger(__name__)


class OnnxRuntimeBackend(FetchingBackend):
    """One session on one provider."""

    def __init__(
        self,
        bundle: Bundle,
        device: str,
        *,
        tensorrt: bool,
        threads: int | None,
        optimised: bool = True,
        workers: int = 1,
    ) -> None:
        """Loads the bundle's graph.

        Args:
            bundle: What to run.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            tensorrt: Use the TensorRT provider (engines are cached per user).
            threads: CPU threads, None for all cores of this process.
            workers: On the CPU, how many threads may run it at a time; they share the CPU threads.
            optimised: Fuse and reorder operators; without, each runs as it stands in the file, and slowly.

        Raises:
            BackendError: ONNX Runtime is not installed or lacks the provider, or the graph is not the manifest's.
        """
        self._bundle = bundle
        ort = _import_onnxruntime()
        provider, options = _choose_provider(ort, device, tensorrt)
        if provider != CPU:
            _load_libraries(ort, provider)
        if bundle.manifest.precision == EXACT:
            if provider == CUDA:
                options["use_tf32"] = 0
            elif provider == TENSORRT and os.environ.get(_TF32) != "0":
                log.warning("the TensorRT provider rounds float32 to TF32 on Ampere and newer: set %s=0", _TF32)
        settings = ort.SessionOptions()
        # Left alone, ONNX Runtime counts the machine's cores, not those that this process may use.
        # Whoever calls computes too: each worker but the first is a thread that need not be made.
        settings.intra_op_num_threads = max((threads or own_cores()) - (workers - 1 if provider == CPU else 0), 1)
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        if not optimised:
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = _open_session(ort, bundle, settings, provider, options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise _refused(ort, bundle, provider, error) from error
        # Otherwise a provider that fails in a run is replaced by the CPU for good, with a print to standard output.
        # Older versions ignore `enable_fallback` above; the check of providers below holds for them.
        self._session.disable_fallback()
        self.name = f"onnxruntime-{SHORT[provider]}"
        self.on_cpu = provider == CPU
        self.workers = workers if self.on_cpu else 1
        if provider not in self._session.get_providers():
            raise _not_started(provider, _missing(ort, provider) or "its libraries load; --debug shows its own words")
        check_signature(bundle, _specs(self._session.get_inputs()), _specs(self._session.get_outputs()))
        self._tensors: DeviceTensors | None = None
        if provider != CPU:
            self._tensors = DeviceTensors(ort, self._session, bundle.manifest, "cuda", options["device_id"])
        self._for_distances: Once[tuple[Any, list[str]] | None] | None = None
        if self.on_cpu and optimised:  # operators as they stand in the file are what others are compared with
            open_graph = partial(_open_distances, ort, bundle, settings)
            self._for_distances = Once(partial(cut_for_distances, bundle, open_graph))

    def _fetch(self, names: Sequence[str], inputs: Inputs) -> list[Floats]:
        """The outputs of these names for one batch, each the caller's own."""
        if self._session is None:
            raise BackendError(f"{self.name} is closed: load the bundle again")
        try:
            if self._tensors is not None:
                return self._tensors.fetch(names, inputs)
            found = self._session.run(list(names), inputs.arrays())
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"{self.name} failed: {one_line(error)}") from error
        return [np.asarray(value) for value in found]

    def _distances(self, inputs: Inputs) -> Floats | None:
        """The distances alone, by a session of their own."""
        cut = None if self._for_distances is None else self._for_distances.value
        if cut is None:
            return None
        (session, names), arrays = cut, inputs.arrays()
        try:
            (found,) = session.run(None, {name: arrays[name] for name in names})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise BackendError(f"{self.name} failed: {one_line(error)}") from error
        return np.asarray(found)

    def close(self) -> None:
        """Frees the sessions and their memory."""
        self._session = self._tensors = self._for_distances = None


def has_cuda() -> bool:
    """Whether this ONNX Runtime has the CUDA provider.

    Raises:
        BackendError: ONNX Runtime is not installed or broken.
    """
    return CUDA in _import_onnxruntime().get_available_providers()


def _import_onnxruntime() -> Any:
    keep_onnxruntime_silent()
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            "no inference engine: pip install 'kanoclip-edge[cpu]', or 'kanoclip-edge[gpu]' on an NVIDIA GPU"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendError(f"onnxruntime is broken: uninstall it and install one extra again{_both_installed()}")
    return onnxruntime


def _choose_provider(ort: Any, device: str, tensorrt: bool) -> tuple[str, dict[str, Any]]:
    available = ort.get_available_providers()
    wanted = TENSORRT if tensorrt else CPU if device == "cpu" else CUDA
    if device == "auto" and not tensorrt and CUDA not in available:
        wanted = CPU
    if wanted not in available:
        names = ", ".join(SHORT[name] for name in available if name in SHORT)
        raise BackendError(
            f"this onnxruntime has no {SHORT[wanted]} provider (it has {names}): pip install 'kanoclip-edge[gpu]' in a "
            f"fresh environment, or choose --device cpu{_both_installed()}"
        )
    if wanted == CPU:
        return CPU, {}
    options: dict[str, Any] = {"device_id": gpu_index(device)}
    if wanted == TENSORRT:
        try:
            cache = cache_folder("onnxruntime-tensorrt")
        except OSError as error:
            raise BackendError(
                f"no folder {error.filename} for engines ({error.strerror}): set XDG_CACHE_HOME"
            ) from error
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(cache),
        }
    return wanted, options


def _load_libraries(ort: Any, provider: str) -> None:
    """Loads what a provider is linked to from where pip has put it: the system's loader does not look there.

    What cannot be loaded is left to the provider, which then does not start.
    """
    if provider == TENSORRT:
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt")  # its wheel loads libnvinfer
    if hasattr(ort, "preload_dlls"):  # since 1.21; builds for Jetson are linked to the system's
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(OSError, RuntimeError):
            ort.preload_dlls()


def _missing(ort: Any, provider: str) -> str | None:
    """The library that keeps a provider from starting, in the loader's words, which ONNX Runtime only logs."""
    for name in ("shared", SHORT[provider]):
        library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
        if library.is_file():
            try:
                ctypes.CDLL(str(library))
            except OSError as error:
                return one_line(error)
    return None


def _not_started(provider: str, reason: str) -> BackendError:
    remedy = "install NVIDIA's driver" if "libcuda.so" in reason else _REMEDIES[provider]
    return BackendError(
        f"ONNX Runtime has {SHORT[provider]} but could not start it ({reason}): {remedy}, or choose --device cpu"
        f"{_both_installed()}"
    )


def _open_distances(ort: Any, bundle: Bundle, settings: Any, graph: bytes) -> tuple[Any, list[str]]:
    """A session on the CPU for the graph that gives the distances to a memory, and its inputs' names."""
    left_out = _LEFT_OUT.get(bundle.manifest.precision, {})
    session = ort.InferenceSession(graph, settings, providers=[CPU], **left_out)
    return session, [value.name for value in session.get_inputs()]


def _open_session(ort: Any, bundle: Bundle, settings: Any, provider: str, options: dict[str, Any]) -> Any:
    """Makes the session; on a GPU with a CUDA graph where the batch is static and every operator runs there."""

    def open_with(more: dict[str, Any]) -> Any:
        chosen = [(provider, options | more)] if options else [provider]
        left_out = _LEFT_OUT.get(bundle.manifest.precision, {}) if provider == CPU else {}
        return ort.InferenceSession(str(bundle.model_path), settings, providers=chosen, enable_fallback=0, **left_out)

    if provider in _GRAPHS and not bundle.manifest.dynamic_batch:
        try:
            return open_with({_GRAPHS[provider]: True})
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            log.info("without a CUDA graph: %s", one_line(error))
    return open_with({})


def _specs(values: Any) -> list[TensorSpec]:
    types = {"tensor(uint8)": "uint8", "tensor(int64)": "int64", "tensor(float)": "float32"}
    return [
        TensorSpec(
            value.name,
            types.get(value.type, value.type),
            tuple(axis if isinstance(axis, int) or axis == ROWS else BATCH for axis in value.shape),
        )
        for value in values
    ]


def _refused(ort: Any, bundle: Bundle, provider: str, error: Exception) -> BackendError:
    if bundle.manifest.precision == "bf16" and provider == CPU:
        return BackendError(f"{bundle.root} is bf16, which no CPU provider runs: export it with --fp16 or --fp32")
    remedy = "export the bundle again" if provider == CPU else "check driver, CUDA and cuDNN, or choose --device cpu"
    if provider != CPU and (missing := _missing(ort, provider)) is not None:
        return _not_started(provider, missing)
    if _DRIVER_TOO_OLD in str(error):
        remedy = f"{driver_too_old(int(ort.cuda_version.partition('.')[0]))}, or choose --device cpu"
    return BackendError(
        f"ONNX Runtime cannot load {bundle.model_path} on {SHORT[provider]} ({one_line(error)}): {remedy}"
    )


def _both_installed() -> str:
    """A hint when two distributions that overwrite each other are installed."""
    try:
        for name in ("onnxruntime", "onnxruntime-gpu"):
            metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
    return f" ({BOTH_INSTALLED})"
