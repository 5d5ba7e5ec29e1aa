"""TensorRT and TensorRT-RTX: a bundle's engine on an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TypeVar

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.base import Answers, BaseBackend, Report, descriptor_of, gpu_index
from kanoclip.runtime.engines.inputs import Floats, Frames, Indices, MemoryTensors
from kanoclip.runtime.engines.reference import Comparison, Reference
from kanoclip.runtime.engines.tensorrt.building.build import Serialized
from kanoclip.runtime.engines.tensorrt.building.key import runs_on
from kanoclip.runtime.engines.tensorrt.building.provide import Compare, kernels_file, provide_engine
from kanoclip.runtime.engines.tensorrt.device import Device, DeviceInfo
from kanoclip.runtime.engines.tensorrt.execution import GpuTimes
from kanoclip.runtime.engines.tensorrt.flavour import load_flavour
from kanoclip.runtime.engines.tensorrt.open_device import open_device
from kanoclip.runtime.engines.tensorrt.session import Session
from kanoclip.runtime.errors import BackendError, BundleError, DeviceLostError
from kanoclip.runtime.system.installed import is_installed

T = TypeVar("T")
IN_FLIGHT = 2
"""One batch is computed while the answers of the one before are decided; further ones would only wait."""

log = logging.getLogger(__name__)


class TensorRtBackend(BaseBackend):
    """One engine on one GPU.

    Attributes:
        name: Such as `tensorrt-rtx-cuda`.
        origin: Where the engine is from, in words.
    """

    workers = 1

    def __init__(
        self,
        bundle: Bundle,
        flavour: str,
        device: str,
        report: Report = lambda step, share: None,
        *,
        rebuild: bool = False,
    ) -> None:
        """Opens the GPU, finds or builds the engine and loads it.

        Args:
            bundle: What to run.
            flavour: `tensorrt` or `tensorrt-rtx`.
            device: `auto`, `cuda` or `cuda:N`.
            report: Called with the progress of a build.
            rebuild: Build the engine now, whatever is there already.

        Raises:
            BackendError: TensorRT, a CUDA binding, the GPU or an engine for it is not to be had, or the bundle is for
                CPUs.
        """
        if bundle.manifest.precision == "int8-cpu":
            raise BackendError(f"{bundle.root} is quantised for CPUs: export it with --int8 for TensorRT")
        found = load_flavour(flavour)
        self._bundle = bundle
        self.name = f"{found.name}-cuda"
        self._session: Session | None = None
        self._device: Device = open_device(gpu_index(device))
        try:
            self._device.enter()
            try:
                kernels = kernels_file(bundle, found, self._device.info)

                def load(serialized: Serialized, stripped: bool = False, in_flight: int = 1) -> Session:
                    return Session(
                        bundle,
                        self._device,
                        found,
                        serialized,
                        stripped=stripped,
                        kernels=kernels,
                        in_flight=in_flight,
                    )

                provided = provide_engine(
                    bundle, found, self._device.info, lambda: _infer(bundle, load), report, rebuild=rebuild
                )
                self.origin = provided.origin
                log.info("engine: %s", provided.origin)
                self._session = load(provided.serialized, provided.stripped, IN_FLIGHT)
                self.in_flight = self._session.in_flight
            finally:
                self._device.leave()
        except BaseException:
            self._device.close()
            raise

    def run(self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None) -> Answers:
        """Runs one batch; see `Backend.run`.

        Raises:
            DeviceLostError: The GPU failed; a new backend may still work.
            BackendError: It is closed, or the GPU does not answer.
        """
        return self._on_device(lambda session: session.run(frames, class_index, memory))

    def submit(
        self, frames: Frames, class_index: Indices | None, memory: MemoryTensors | None = None
    ) -> Callable[[], Answers]:
        """Begins one batch; see `Backend.submit`.

        Raises:
            DeviceLostError: The GPU failed; a new backend may still work.
            BackendError: It is closed, or the GPU does not answer.
        """
        collect = self._on_device(lambda session: session.submit(frames, class_index, memory))
        return lambda: self._on_device(lambda _: collect())

    def describe(self, frames: Frames) -> Floats:
        """Computes the descriptors of one batch; see `Backend.describe`.

        Raises:
            DeviceLostError: The GPU failed; a new backend may still work.
            BackendError: The bundle has none, it is closed, or the GPU does not answer.
        """
        descriptor_of(self._bundle)
        return self._on_device(lambda session: session.describe(frames))

    def _on_device(self, work: Callable[[Session], T]) -> T:
        if self._session is None:
            raise BackendError(f"{self.name} is closed: load the bundle again")
        try:
            self._device.enter()
            try:
                return work(self._session)
            finally:
                self._device.leave()
        except DeviceLostError:
            self._device.lost = True
            raise

    def time(self, frames: Frames, class_index: Indices | None, *, graph: bool) -> GpuTimes:
        """Measures a run; see `Execution.time`.

        Raises:
            DeviceLostError: The GPU failed.
            BackendError: It is closed, has no graph where one is asked for, or the GPU does not answer.
        """
        return self._on_device(lambda session: session.time(frames, class_index, graph=graph))

    @property
    def recorded(self) -> tuple[int, ...]:
        """Batch sizes that are launched as a graph which was recorded here: full TensorRT's, after their first run."""
        return () if self._session is None else self._session.recorded

    @property
    def device_info(self) -> DeviceInfo:
        """Which GPU it runs on."""
        return self._device.info

    def fused_attention(self) -> int:
        """How many attention blocks run as one fused kernel, by the names of the engine's layers.

        Raises:
            BackendError: It is closed.
        """
        if self._session is None:
            raise BackendError(f"{self.name} is closed: load the bundle again")
        return self._session.fused_attention()

    def close(self) -> None:
        """Releases the engine and the GPU's memory."""
        session, self._session = self._session, None
        if session is not None:
            entered = False
            with contextlib.suppress(BackendError):  # a lost GPU: what can be freed is freed below
                self._device.enter()
                entered = True
            try:
                session.close()
            finally:
                if entered:
                    self._device.leave()
        self._device.close()


def fitting_flavour(bundle: Bundle, device: str) -> str | None:
    """Which TensorRT can run an engine that the bundle brings along, if one can; nothing is built and nothing fails."""
    try:
        gpu = open_device(gpu_index(device))
    except BackendError:
        return None
    gpu.close()
    for engine in bundle.manifest.engines:
        with contextlib.suppress(BackendError):
            if runs_on(engine, load_flavour(engine.flavour), gpu.info):
                return engine.flavour
    return None


def _infer(bundle: Bundle, load: Callable[[Serialized], Session]) -> Compare | None:
    """Compares an engine with ONNX Runtime on the bundle's own images, where both are there."""
    if not is_installed("onnxruntime"):
        return None
    try:
        reference = Reference(bundle)
    except BundleError:
        return None

    def infer(serialized: Serialized) -> Comparison:
        session = load(serialized)
        try:
            return reference.compare(reference.run(session))
        finally:
            session.close()

    return infer
