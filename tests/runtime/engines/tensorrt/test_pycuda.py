"""The second binding, over the same GPU in host memory. pycuda has no wheels and needs CUDA's headers to build."""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend
from kanoclip.runtime.engines.tensorrt import device
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend
from kanoclip.runtime.engines.tensorrt.building import provide
from kanoclip.runtime.engines.tensorrt.open_device import open_device
from kanoclip.runtime.errors import BackendError, DeviceLostError


class CudaError(Exception):
    pass


class FakePycuda(ModuleType):
    """`pycuda.driver`, as far as it is used. What needs a current context asserts that there is one."""

    Error = CudaError
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    device_attribute = SimpleNamespace(INTEGRATED=18)

    def __init__(self, cuda):
        super().__init__("pycuda.driver")
        self.cuda, self.depth, self.retained = cuda, 0, 0
        self.broken = False
        """The primary context remembers an error until its last user has given it back."""
        self.fail = None
        self.Context = SimpleNamespace(pop=lambda: self._move(-1))

    def _move(self, by):
        self.depth += by
        assert self.depth >= 0

    def check(self, name):
        assert self.depth > 0, f"{name} without a current context"
        if self.fail == name:
            self.broken = True
        if self.broken and name != "free":
            raise CudaError(f"{name} failed: unspecified launch failure")

    def init(self):
        if self.fail == "init":
            raise CudaError("no driver")

    def get_version(self):
        return 12, 6, 0

    def get_driver_version(self):
        return 12060

    def Device(self, index):  # the name is pycuda's
        def retain():
            self.retained += 1
            maker, depth = threading.get_ident(), self.depth

            def detach():
                current = self.depth > depth
                if current or threading.get_ident() == maker:  # as pycuda's context::detach does
                    self.retained -= 1
                    self.broken = self.broken and self.retained > 0
                self.depth = depth

            return SimpleNamespace(push=lambda: self._move(1), detach=detach)

        return SimpleNamespace(
            name=lambda: "Orin",
            pci_bus_id=lambda: "0000:00:00.0",
            compute_capability=lambda: (8, 7),
            get_attribute=lambda attribute: int(self.cuda.integrated),
            retain_primary_context=retain,
        )

    def Stream(self, flags):  # the name is pycuda's
        assert flags == 1
        self.check("Stream")

        def done():
            self.check("is_done")
            return self.cuda.cudaStreamQuery(handle)[0] == 0

        handle = self.cuda.make_stream()
        return SimpleNamespace(handle=handle, is_done=done)

    def _block(self, size):
        _, address = self.cuda._allocate("any", size)

        def free():
            self.check("free")
            del self.cuda.memory[address]

        return address, free

    def pagelocked_empty(self, size, dtype, mem_flags=0):
        self.check("pagelocked_empty")
        assert mem_flags == (2 if self.cuda.integrated else 0)
        address, free = self._block(size)
        owner = Owner(self.cuda.memory[address])
        owner.free, owner.get_device_pointer = free, lambda: address
        return np.asarray(owner)

    def mem_alloc(self, size):
        self.check("mem_alloc")
        address, free = self._block(size)
        return type("Memory", (), {"__int__": lambda _: address, "free": lambda _: free()})()

    def Event(self):  # the name is pycuda's
        self.check("Event")
        number = self.cuda.cudaEventCreate()[1]
        return SimpleNamespace(
            number=number,
            record=lambda stream: self.cuda.cudaEventRecord(number, stream.handle),
            time_till=lambda other: self.cuda.cudaEventElapsedTime(number, other.number)[1],
        )

    def memcpy_htod_async(self, target, source, stream):
        self.check("memcpy_htod_async")
        self.cuda.put(stream.handle, lambda: ctypes.memmove(target, source.ctypes.data, source.nbytes))

    def memcpy_dtoh_async(self, target, source, stream):
        self.check("memcpy_dtoh_async")
        self.cuda.put(stream.handle, lambda: ctypes.memmove(target.ctypes.data, source, target.nbytes))


class Owner:
    """Host memory that numpy arrays are views of, as pycuda's own allocation is."""

    def __init__(self, block):
        self.block = block
        self.__array_interface__ = {
            "shape": (len(block),),
            "typestr": "|u1",
            "data": (ctypes.addressof(block), False),
            "version": 3,
        }


FakePycuda.Device.count = staticmethod(lambda: 1)


@pytest.fixture
def pycuda(make_machine, monkeypatch):
    """A machine on which cuda-python is not installed and pycuda is."""

    def make(**options):
        machine = make_machine("tensorrt", **options)
        fake = FakePycuda(machine.cuda)
        monkeypatch.setitem(sys.modules, "kanoclip.runtime.engines.tensorrt.cuda_python", None)
        package = ModuleType("pycuda")
        package.driver = fake
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
        monkeypatch.delitem(sys.modules, "kanoclip.runtime.engines.tensorrt.pycuda", raising=False)
        monkeypatch.setattr(provide, "build_engine", lambda *arguments: memoryview(json.dumps({"drift": 0.0}).encode()))
        importlib.import_module("kanoclip.runtime.engines.tensorrt.pycuda")
        machine.pycuda = fake
        return machine

    yield make
    sys.modules.pop("kanoclip.runtime.engines.tensorrt.pycuda", None)


def open_backend(machine, number="cuda"):
    return TensorRtBackend(machine.bundle, "tensorrt", number, lambda step, share: None)


@pytest.mark.parametrize("integrated", [False, True])
def test_right_answers_without_graphs_and_nothing_left(pycuda, integrated):
    machine = pycuda(integrated=integrated)
    backend = open_backend(machine)
    plain = OnnxRuntimeBackend(machine.bundle, "cpu", tensorrt=False, threads=1)
    for seed in range(3):
        given = np.random.default_rng(seed).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
        for mine, theirs in zip(backend.run(given, None), plain.run(given, None), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert machine.cuda.launches == 0 and machine.pycuda.depth == 0 and machine.pycuda.retained == 1
    assert backend.time(np.zeros((1, 32, 32, 3), np.uint8), None, graph=False).compute == 50.0
    backend.close()
    backend.close()
    assert not machine.cuda.memory and machine.pycuda.retained == 0 and machine.pycuda.depth == 0


@pytest.mark.parametrize("call", ["memcpy_htod_async", "is_done"])
def test_a_lost_gpu(pycuda, call):
    machine = pycuda()
    backend = open_backend(machine)
    machine.pycuda.fail = call
    with pytest.raises(DeviceLostError, match="launch failure"):
        backend.run(np.zeros((1, 32, 32, 3), np.uint8), None)
    backend.close()
    assert machine.pycuda.retained == 0 and machine.pycuda.depth == 0


def test_a_lost_gpu_is_started_again_by_the_thread_that_scores(pycuda):
    """The context was made by the main thread: given back from another one, pycuda would keep it, error and all."""
    machine = pycuda()
    detector = Detector(machine.bundle, open_backend(machine), revive=lambda: open_backend(machine))
    frame, found = np.full((32, 32, 3), 90, np.uint8), []

    def score():
        for fail in (None, "is_done", None):
            machine.pycuda.fail = fail
            if fail is not None:  # met once, by the next call; what is left of it is in the context
                machine.pycuda.broken, machine.pycuda.fail = True, None
            found.append(detector(frame).score)

    thread = threading.Thread(target=score)
    thread.start()
    thread.join()
    assert found == [pytest.approx(90 / 255)] * 3
    detector.close()


def test_a_gpu_that_does_not_answer(pycuda, monkeypatch):
    machine = pycuda()
    backend = open_backend(machine)
    monkeypatch.setattr(device, "PATIENCE", 0.05)
    machine.cuda.asked_before_done = 10**9
    with pytest.raises(BackendError, match="has not answered"):
        backend.run(np.zeros((1, 32, 32, 3), np.uint8), None)
    backend.close()
    assert machine.cuda.memory and machine.pycuda.depth == 0


@pytest.mark.parametrize(
    ("call", "words"), [("init", "no driver"), ("mem_alloc", "GPU memory"), ("Stream", "make a stream")]
)
def test_what_cannot_be_had(pycuda, call, words):
    machine = pycuda()
    machine.pycuda.fail = call
    with pytest.raises(BackendError, match=words):
        open_backend(machine)
    assert machine.pycuda.depth == 0


def test_another_gpu_than_there_is(pycuda):
    machine = pycuda()
    with pytest.raises(BackendError, match="no GPU 1, only 1"):
        open_backend(machine, "cuda:1")


def test_no_binding_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "kanoclip.runtime.engines.tensorrt.cuda_python", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "kanoclip.runtime.engines.tensorrt.pycuda", raising=False)
    with pytest.raises(BackendError, match="pip install cuda-python"):
        open_device(0)
