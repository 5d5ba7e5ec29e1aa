"""A GPU in host memory: CUDA's calls and TensorRT's runtime, as far as the backend uses them, with faults on demand.

There is no GPU where these tests run. Addresses are real ones of host memory and copies really copy, at the time a
stream would make them: when it is waited for. The engine computes the toy bundle's graph.
"""

from __future__ import annotations

import ctypes
import enum
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.signature import MEMORY_INPUTS
from kanoclip.runtime.engines.inputs import MemoryTensors, fixed_rows
from kanoclip.runtime.engines.tensorrt.building import provide
from kanoclip.runtime.engines.tensorrt.flavour import Flavour

Status = enum.IntEnum(
    "Status",
    {
        "cudaSuccess": 0,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorInsufficientDriver": 35,
        "cudaErrorNotReady": 600,
        "cudaErrorLaunchFailure": 719,
        "cudaErrorStreamCaptureUnsupported": 900,
        "cudaErrorStreamCaptureInvalidated": 901,
    },
)
OK = Status.cudaSuccess
SCRATCH = 12_345
"""Bytes that the engine computes in."""


class FakeCuda:
    """The part of `cuda.bindings.runtime` that is used."""

    cudaError_t = Status
    cudaStreamNonBlocking, cudaHostAllocMapped, cudaHostAllocDefault = 1, 2, 0
    cudaMemcpyKind = enum.IntEnum("Kind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    cudaStreamCaptureMode = enum.IntEnum("Mode", {"cudaStreamCaptureModeThreadLocal": 1})
    cudaDeviceAttr = enum.IntEnum(
        "Attr",
        {"cudaDevAttrComputeCapabilityMajor": 75, "cudaDevAttrComputeCapabilityMinor": 76, "cudaDevAttrIntegrated": 18},
    )

    def __init__(self, integrated=False):
        self.integrated = integrated
        self.memory = {}
        self.queues, self.captured, self.graphs = {}, None, {}
        """What waits on each stream, by its handle; what is captured, as (stream, work); recorded graphs."""
        self.order = []
        """Inferences in the order in which they were put on streams and waited for: ("start" or "wait", stream)."""
        self.launches, self.resets, self.forgotten, self.streams = 0, 0, 0, 0
        self.downloads, self.uploads = [], []
        """Bytes of each copy to the host, as it is made."""
        self.events, self.clock = {}, 0.0
        """Events, and the GPU's clock in ms: a copied kilobyte takes 1, an inference 50."""
        self.fail = {}
        """Status to give, by the name of a call."""
        self.asked_before_done = 1
        """How often a stream says that it is not ready yet."""
        self._asked = 0

    def put(self, stream, work):
        captured = self.captured is not None and self.captured[0] == stream
        (self.captured[1] if captured else self.queues[stream]).append(work)

    def _status(self, name):
        return self.fail.get(name, OK)

    def cudaGetDeviceCount(self):
        return self._status("cudaGetDeviceCount"), 1

    def cudaSetDevice(self, index):
        return (self._status("cudaSetDevice"),)

    def cudaDeviceGetAttribute(self, attribute, index):
        attr = self.cudaDeviceAttr
        values = {attr.cudaDevAttrComputeCapabilityMajor: 8, attr.cudaDevAttrComputeCapabilityMinor: 9}
        return OK, values.get(attribute, int(self.integrated))

    def cudaGetDeviceProperties(self, index):
        return OK, SimpleNamespace(name=b"Fake RTX")

    def cudaRuntimeGetVersion(self):
        return OK, 13050

    def cudaDeviceGetPCIBusId(self, length, index):
        return OK, b"0000:65:00.0\0" + bytes(length - 13)

    def cudaEventCreate(self):
        self.events[len(self.events)] = None
        return OK, len(self.events) - 1

    def cudaEventRecord(self, event, stream):
        self.put(stream, lambda: self.events.update({event: self.clock}))
        return (OK,)

    def cudaEventElapsedTime(self, start, end):
        return OK, self.events[end] - self.events[start]

    def cudaEventDestroy(self, event):
        self.events[event] = "gone"
        return (OK,)

    def cudaDriverGetVersion(self):
        return OK, 13000

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        if (status := self._status("cudaStreamCreateWithFlags")) != OK:
            return status, None
        return OK, self.make_stream()

    def make_stream(self):
        handle = 0x5EA + self.streams
        self.streams += 1
        self.queues[handle] = []
        return handle

    def cudaStreamDestroy(self, stream):
        del self.queues[stream]
        return (OK,)

    def _allocate(self, name, size):
        if (status := self._status(name)) != OK:
            return status, None
        block = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(block)] = block
        return OK, ctypes.addressof(block)

    def cudaHostAlloc(self, size, flags):
        assert (flags == self.cudaHostAllocMapped) == self.integrated
        return self._allocate("cudaHostAlloc", size)

    def cudaMalloc(self, size):
        assert not self.integrated or size == SCRATCH, "an integrated GPU needs no second copy"
        return self._allocate("cudaMalloc", size)

    def cudaHostGetDevicePointer(self, address, flags):
        return OK, address

    def cudaFree(self, address):
        del self.memory[address]
        return (OK,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        if (status := self._status("cudaMemcpyAsync")) == OK:
            self.put(stream, lambda: self._copy(target, source, size, kind))
        return (status,)

    def _copy(self, target, source, size, kind):
        ctypes.memmove(target, source, size)
        self.clock += size / 1024
        if kind == self.cudaMemcpyKind.cudaMemcpyDeviceToHost:
            self.downloads.append(size)
        else:
            self.uploads.append(size)

    def cudaStreamQuery(self, stream):
        if (status := self._status("cudaStreamQuery")) != OK:
            return (status,)
        self._asked += 1
        if self._asked <= self.asked_before_done:
            return (Status.cudaErrorNotReady,)
        self._asked = 0
        queue, self.queues[stream] = self.queues[stream], []
        for work in queue:
            work()
        if any(isinstance(work, Inference) for work in queue):
            self.order.append(("wait", stream))
        return (OK,)

    def cudaStreamBeginCapture(self, stream, mode):
        if (status := self._status("cudaStreamBeginCapture")) == OK:
            self.captured = (stream, [])
        return (status,)

    def cudaStreamEndCapture(self, stream):
        (_, graph), self.captured = self.captured, None
        return self._status("cudaStreamEndCapture"), graph

    def cudaGetLastError(self):
        self.forgotten += 1
        return (OK,)

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs[len(self.graphs)] = graph
        return self._status("cudaGraphInstantiate"), len(self.graphs) - 1

    def cudaGraphDestroy(self, graph):
        return (OK,)

    def cudaGraphLaunch(self, graph, stream):
        self.launches += 1
        self.queues[stream] += self.graphs[graph]
        self.order.append(("start", stream))
        return (self._status("cudaGraphLaunch"),)

    def cudaGraphExecDestroy(self, graph):
        del self.graphs[graph]
        return (OK,)

    def cudaDeviceReset(self):
        self.resets += 1
        self.fail.clear()
        self.queues, self.captured = {}, None
        return (OK,)

    def cudaGetErrorString(self, status):
        return OK, Status(status).name.encode()


class FakeRtx:
    """TensorRT's module. An engine's bytes are JSON: `drift` is added to its maps."""

    class ILogger:
        Severity = enum.IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1})

        def __init__(self):
            pass

    TensorIOMode = enum.IntEnum("TensorIOMode", {"INPUT": 1, "OUTPUT": 2})
    LayerInformationFormat = enum.IntEnum("LayerInformationFormat", {"ONELINE": 0, "JSON": 1})
    ExecutionContextAllocationStrategy = enum.IntEnum("Strategy", {"STATIC": 0, "USER_MANAGED": 2})
    CudaGraphStrategy = enum.IntEnum("CudaGraphStrategy", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1})

    def __init__(self, cuda, bundle, describe, answer):
        self.cuda, self.manifest, self.describe = cuda, fixed_rows(bundle.manifest), describe
        self.answer = answer
        self.contexts, self.refitted = [], []
        self.fails = False
        """Whether a run is refused."""

    def Runtime(self, logger):  # the name is TensorRT's
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def Refitter(self, engine, logger):
        return SimpleNamespace(refit_cuda_engine=lambda: True)

    def OnnxParserRefitter(self, refitter, logger):
        return SimpleNamespace(refit_from_file=lambda path: self.refitted.append(path) or path.endswith("model.onnx"))

    def _engine(self, serialized):
        try:
            facts = json.loads(bytes(serialized))
        except ValueError:
            return None
        return Engine(self, facts)


class Engine:
    def __init__(self, trt, facts):
        self.trt, self.facts = trt, facts
        self.specs = [*trt.manifest.inputs, *trt.manifest.outputs]
        if facts.get("reversed"):
            self.specs.reverse()
        self.num_io_tensors, self.device_memory_size_v2 = len(self.specs), SCRATCH
        self.config = None

    def get_tensor_name(self, number):
        return self.specs[number].name

    def _spec(self, name):
        return next(spec for spec in self.specs if spec.name == name)

    def get_tensor_dtype(self, name):
        names = {"uint8": "UINT8", "int64": "INT64", "float32": "FLOAT"}
        return SimpleNamespace(name=self.facts.get("dtype", names[self._spec(name).dtype]))

    def get_tensor_shape(self, name):
        return tuple(-1 if axis == "batch" else axis for axis in self._spec(name).shape)

    def get_tensor_mode(self, name):
        modes = self.trt.TensorIOMode
        return modes.INPUT if self._spec(name) in self.trt.manifest.inputs else modes.OUTPUT

    def create_runtime_config(self):
        self.config = SimpleNamespace(
            cuda_graph_strategy=self.trt.CudaGraphStrategy.DISABLED,
            create_runtime_cache=Kernels,
            set_runtime_cache=lambda kernels: setattr(self, "kernels", kernels),
        )
        return self.config

    def create_execution_context(self, config=None):
        managed = config is self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        assert managed or config is self.config
        self.trt.contexts.append(Context(self, managed))
        return self.trt.contexts[-1]

    def create_engine_inspector(self):
        layers = [{"Name": f"_gemm_mha_v2_{number}"} for number in range(self.facts.get("fused", 0))]
        text = json.dumps({"Layers": [*layers, {"Name": "resize"}, "_gemm_mha_v2 as a plain name"]})
        return SimpleNamespace(get_engine_information=lambda form: text)


class Kernels:
    """RTX's runtime cache: what it compiles for a GPU."""

    def __init__(self):
        self.content = b""

    def deserialize(self, content):
        if not content.startswith(b"kernels"):
            return False
        self.content = content
        return True

    def serialize(self):
        return self.content or b""


class Inference:
    """A run on a stream."""

    def __init__(self, compute):
        self.compute = compute

    def __call__(self):
        self.compute()


class Context:
    def __init__(self, engine, managed):
        self.engine, self.trt = engine, engine.trt
        self.addresses, self.shapes, self.runs = {}, {}, 0
        self.scratch = None if managed else "its own"

    def set_device_memory(self, address, size):
        assert size == SCRATCH and address in self.trt.cuda.memory
        self.scratch = address

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return address in self.trt.cuda.memory

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def execute_async_v3(self, stream):
        self.runs += 1
        assert self.scratch is not None, "it computes in no memory"
        if self.trt.fails:
            return False
        if self.trt.cuda.captured is None:
            self.trt.cuda.order.append(("start", stream))
        self.trt.cuda.put(stream, Inference(self._compute))
        if (kernels := getattr(self.engine, "kernels", None)) is not None:
            kernels.content = b"kernels for the Fake RTX"
        return True

    def _tensor(self, spec):
        batch = self.shapes.get("frame", (self.trt.manifest.max_batch,))[0]
        shape = spec.shape if spec.name in MEMORY_INPUTS else (batch, *spec.shape[1:])
        size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
        block = (ctypes.c_uint8 * size).from_address(self.addresses[spec.name])
        return np.frombuffer(block, spec.dtype).reshape(shape)

    def _compute(self):
        self.trt.cuda.clock += 50
        tensors = {spec.name: self._tensor(spec) for spec in self.engine.specs}
        maps = tensors["frame"].astype(np.float32).mean(axis=3) / np.float32(255)
        if "class_index" in tensors:
            weight = tensors["class_index"].astype(np.float32)[:, None, None]
            maps = maps + weight * (1 - 2 * maps)
        tensors["score"][:] = maps.max(axis=(1, 2))
        tensors["map"][:] = maps + np.float32(self.engine.facts.get("drift", 0))
        if "descriptor" in tensors:
            grid = self.trt.manifest.descriptor.grid
            tensors["descriptor"][:] = self.trt.describe(tensors["frame"], grid)
        if "memory" in tensors and tensors["memory_fusion"][0] > 0.5:
            memory = MemoryTensors(*(tensors[name] for name in MEMORY_INPUTS))
            tensors["map"][:], tensors["score"][:] = self.trt.answer(tensors["frame"], tensors["descriptor"], memory)


class Machine:
    """A fake GPU, a toy bundle, and TensorRT in one of its flavours."""

    def __init__(self, bundle, flavour, integrated, describe, answer):
        self.bundle = bundle
        self.cuda = FakeCuda(integrated)
        self.trt = FakeRtx(self.cuda, bundle, describe, answer)
        self.flavour = Flavour(flavour, self.trt, "10.3.0" if flavour == "tensorrt" else "1.7.1")


@pytest.fixture
def make_machine(tmp_path, make_toy_bundle, toy_descriptors, toy_answers, monkeypatch):
    """Makes a machine; everything kept goes into the test's own folder."""
    module = pytest.importorskip("kanoclip.runtime.engines.tensorrt.cuda_python", reason="cuda-python is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(flavour="tensorrt-rtx", *, integrated=False, samples=2, **options):
        bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", samples=samples, **options))
        machine = Machine(bundle, flavour, integrated, toy_descriptors, toy_answers)
        monkeypatch.setattr(module, "cudart", machine.cuda)
        monkeypatch.setattr("kanoclip.runtime.engines.tensorrt.backend.load_flavour", lambda name: machine.flavour)
        return machine

    return make


@pytest.fixture
def with_engines():
    """A bundle whose manifest lists engines, each with its content."""

    def add(bundle, engines):
        from kanoclip.runtime.bundle.bundle import sha256_of
        from kanoclip.runtime.bundle.manifest.parts import FileInfo
        from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME

        files = dict(bundle.manifest.files)
        for info, content in engines:
            path = bundle.root / info.file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            files[info.file] = FileInfo(sha256_of(path), len(content))
        manifest = replace(bundle.manifest, files=files, engines=tuple(info for info, _ in engines))
        (bundle.root / MANIFEST_NAME).write_text(manifest.to_json())
        return Bundle.open(bundle.root)

    return add


@pytest.fixture
def builds(monkeypatch):
    """Builds that take no time: a list of what was asked for; `drift` says how wrong each choice is."""
    asked = []

    def build(flavour, onnx_path, options, progress):
        asked.append(options)
        progress(0.5)
        return memoryview(json.dumps({"drift": asked_drift[0](options.fp32_attention)}).encode())

    asked_drift = [lambda chosen: 0.0]
    monkeypatch.setattr(provide, "build_engine", build)
    monkeypatch.setattr(provide, "count_attention", lambda flavour, path: 8)
    build.asked, build.drift = asked, asked_drift
    return build
