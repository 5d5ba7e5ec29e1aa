"""OpenVINO on the CPU, in float32 or, where the processor has it, in bfloat16."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.signature import BATCH, MEMORY_INPUTS, ROWS, TensorSpec
from kanoclip.runtime.engines.base import FetchingBackend, check_signature, cut_for_distances
from kanoclip.runtime.engines.inputs import Floats, Inputs
from kanoclip.runtime.errors import BackendError, one_line
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.system.once import Once
from kanoclip.runtime.system.paths import cache_folder

_TYPES = {"u8": "uint8", "i64": "int64", "f32": "float32"}


class OpenVinoBackend(FetchingBackend):
    """One compiled graph with one request a worker, used again for every batch."""

    def __init__(self, bundle: Bundle, *, bf16: bool, threads: int | None, workers: int = 1) -> None:
        """Loads and compiles the bundle's graph.

        Args:
            bundle: What to run.
            bf16: Compute in bfloat16 instead of float32.
            threads: CPU threads, None for all cores of this process.
            workers: How many threads may run it at a time; they share the CPU threads.

        Raises:
            BackendError: OpenVINO is not installed or broken, the processor lacks bfloat16, or the graph is not the
                manifest's.
        """
        self._requests: SimpleQueue[Any] | None = None
        self._for_distances: Once[tuple[SimpleQueue[Any], list[str]] | None] | None = None
        self.name, self.on_cpu = "openvino-bf16-cpu" if bf16 else "openvino-cpu", True
        core, can_bf16 = _start()
        if bf16 and not can_bf16:
            raise BackendError("this processor has no bfloat16: choose --backend openvino, which computes in float32")
        try:
            model = core.read_model(str(bundle.model_path))
        except Exception as error:
            raise _refused(bundle, error) from error
        check_signature(
            bundle,
            [_spec(port, listed.name) for port, listed in _pairs(model.inputs, bundle.manifest.inputs)],
            [_spec(port, listed.name) for port, listed in _pairs(model.outputs, bundle.manifest.outputs)],
        )
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": workers,
            # A thread that is bound to a core waits there for the one that decodes video, though another core is free.
            "ENABLE_CPU_PINNING": False,
            # Left alone, OpenVINO takes one thread per physical core of the machine.
            "INFERENCE_NUM_THREADS": threads or own_cores(),
            # Left alone, it computes in bfloat16 wherever the processor can, and answers otherwise than was measured.
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        }
        try:
            requests = _requests(core, model, settings, workers)
        except Exception as error:
            raise _refused(bundle, error) from error
        self._bundle, self._requests, self.workers = bundle, requests, workers
        open_graph = partial(_requests_for_distances, core, settings, workers)
        self._for_distances = Once(partial(cut_for_distances, bundle, open_graph))
        self._numbers = {spec.name: number for number, spec in enumerate(bundle.manifest.outputs)}

    def _fetch(self, names: Sequence[str], inputs: Inputs) -> list[Floats]:
        """The outputs of these names for one batch, each the caller's own."""
        requests = self._requests
        if requests is None:
            raise BackendError(f"{self.name} is closed: load the bundle again")
        return self._infer(requests, list(inputs.arrays().values()), [self._numbers[name] for name in names])

    def _distances(self, inputs: Inputs) -> Floats | None:
        """The distances alone, by requests of their own."""
        found = None if self._for_distances is None else self._for_distances.value
        if found is None:
            return None
        requests, names = found
        arrays = inputs.arrays()
        return self._infer(requests, [arrays[name] for name in names], [0])[0]

    def _infer(self, requests: SimpleQueue[Any], arrays: list[Any], outputs: Sequence[int]) -> list[Floats]:
        request = requests.get()  # waits where more threads come than there are requests
        try:
            # The frames are read where they lie. Of the outputs those asked for are copied, and no others: the caller
            # may keep them, and the next run writes over the request's own.
            found = request.infer(arrays, share_inputs=True, share_outputs=True)
            return [np.array(found[number]) for number in outputs]
        except Exception as error:
            raise BackendError(f"{self.name} failed: {one_line(error)}") from error
        finally:
            requests.put(request)

    def close(self) -> None:
        """Frees the graphs and their memory."""
        self._requests = self._for_distances = None


def has_bf16() -> bool:
    """Whether this processor has bfloat16.

    Raises:
        BackendError: OpenVINO is not installed or broken, or cannot use this processor.
    """
    return _start()[1]


def shared_core() -> Any:
    """The process's one OpenVINO core: whoever uses OpenVINO takes this one (see `_core`).

    Raises:
        BackendError: OpenVINO is not installed or broken, or cannot use this processor.
    """
    return _start()[0]


def _start() -> tuple[Any, bool]:
    """OpenVINO's core, and whether the processor has bfloat16."""
    openvino = _import_openvino()
    try:
        core = _core(openvino.Core)
        return core, "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # OpenVINO raises RuntimeError and others, by version
        raise BackendError(
            f"OpenVINO cannot use this processor ({one_line(error)}): choose --backend onnxruntime"
        ) from error


@cache
def _core(make: Callable[[], Any]) -> Any:
    """One core for the whole process, which is never destroyed.

    A core gives the thread that makes it an alternate stack for signals, and restores the one before when it goes. Of
    two that overlap the later one restores the earlier one's, which is gone by then: the next signal that Python
    handles, such as Ctrl-C, ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    return make()


def _import_openvino() -> Any:
    try:
        with _without_usage_reports():
            import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise _broken(error) from error
        raise BackendError("OpenVINO is not installed: pip install 'kanoclip-edge[openvino]'") from error
    except Exception as error:  # a library that does not load raises ImportError, OSError or others
        raise _broken(error) from error
    if not hasattr(openvino, "Core"):
        raise _broken(AttributeError("it has no Core"))
    return openvino


@contextmanager
def _without_usage_reports() -> Iterator[None]:
    """Has OpenVINO find no `openvino_telemetry` while it is imported, so that it takes the stub of its own.

    The package would report each import to Google Analytics unless the user's home holds a file that says no, write an
    identifier there, and log through the root logger, which gives that a handler. A program that has imported it before
    us decides for itself.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's own mark of what cannot be imported
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def _broken(error: Exception) -> BackendError:
    return BackendError(f"openvino is broken ({one_line(error)}): uninstall it and install it again")


def _compile(core: Any, model: Any, settings: dict[str, Any]) -> Any:
    """Compiles with a cache of compiled graphs, which halves the time to load; without one where that fails.

    Each precision has a folder of its own: OpenVINO (2026.4) finds a compiled graph by model, processor and version,
    not by `INFERENCE_PRECISION_HINT`. What was compiled for float32, loaded for bfloat16, gives NaN or wrong answers,
    or ends the process with a segmentation fault on processors with AMX.
    """
    try:
        folder = cache_folder(f"openvino/{settings['INFERENCE_PRECISION_HINT']}")
        if os.access(folder, os.W_OK):
            return core.compile_model(model, "CPU", {**settings, "CACHE_DIR": str(folder)})
    except Exception:  # a full disk or a damaged file; a graph that cannot be compiled fails again below
        pass
    return core.compile_model(model, "CPU", settings)


def _requests(core: Any, model: Any, settings: dict[str, Any], workers: int) -> SimpleQueue[Any]:
    """A compiled graph's requests, one a worker."""
    compiled = _compile(core, model, settings)
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(workers):
        requests.put(compiled.create_infer_request())
    return requests


def _requests_for_distances(
    core: Any, settings: dict[str, Any], workers: int, graph: bytes
) -> tuple[SimpleQueue[Any], list[str]]:
    """Those of the graph that gives the distances to a memory, and its inputs' names."""
    model = core.read_model(graph, b"")
    return _requests(core, model, settings, workers), [port.get_any_name() for port in model.inputs]


def _pairs(ports: Any, listed: tuple[TensorSpec, ...]) -> list[tuple[Any, TensorSpec]]:
    """Each port with what the manifest lists in its place; a port too many comes with the last one."""
    return [(port, listed[min(number, len(listed) - 1)]) for number, port in enumerate(ports)]


def _spec(port: Any, listed: str) -> TensorSpec:
    """What a port takes or gives. It may have several names, one of which is enough."""
    open_axis = ROWS if listed in MEMORY_INPUTS else BATCH
    shape = tuple(axis.get_length() if axis.is_static else open_axis for axis in port.get_partial_shape())
    kind = port.get_element_type().get_type_name()
    return TensorSpec(listed if listed in port.get_names() else port.get_any_name(), _TYPES.get(kind, kind), shape)


def _refused(bundle: Bundle, error: Exception) -> BackendError:
    return BackendError(
        f"OpenVINO cannot load {bundle.model_path} ({one_line(error)}): choose --backend onnxruntime, or export the "
        "bundle again"
    )
