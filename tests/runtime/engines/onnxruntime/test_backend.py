"""ONNX Runtime: what is asked for by name is what runs, or one line says why not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest

from kanoclip.runtime import engines
from kanoclip.runtime.bundle.bundle import Bundle, sha256_of, shipped_bundle
from kanoclip.runtime.bundle.manifest.parts import FileInfo
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.signature import TensorSpec
from kanoclip.runtime.engines import BACKENDS, create_backend
from kanoclip.runtime.engines.onnxruntime import backend as backend_module
from kanoclip.runtime.errors import BackendError

NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


@pytest.fixture
def bundle(toy_bundle):
    return Bundle.open(toy_bundle)


def frames(count=1, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def refused(bundle, *arguments, words=(), **options):
    with pytest.raises(BackendError) as caught:
        create_backend(bundle, *arguments, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message, message
    return message


def fake_runtime(monkeypatch, providers, started=None, refuses=()):
    """An onnxruntime with other providers; keeps the settings and providers of the sessions it makes.

    Its device memory is the CPU's. `refuses` are options that a session does not start with.
    """
    made = []

    class OrtValue:
        made: ClassVar = []

        @classmethod
        def ortvalue_from_shape_and_type(cls, shape, dtype, device, number):
            cls.made.append((device, number))
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)

    class Session:
        def __init__(self, path, settings, providers, enable_fallback):
            assert enable_fallback == 0
            for name in refuses:
                if isinstance(providers[0], tuple) and name in providers[0][1]:
                    raise RuntimeError(f"{name}: an operator runs on the CPU")
            made.append((path, settings, providers))
            self._inner = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return providers if started is None else started

        def __getattr__(self, name):
            return getattr(self._inner, name)

    module = types.SimpleNamespace(
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=Session,
        OrtValue=OrtValue,
        get_available_providers=lambda: providers,
        __file__="/nowhere/onnxruntime/__init__.py",
        cuda_version="13.0",
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    return made


ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
def test_runs_on_the_cpu(bundle, name):
    backend = create_backend(bundle, name, "cpu", threads=1)
    assert backend.name == "onnxruntime-cpu"
    given = frames()
    maps, scores = backend.run(given, None)
    assert (maps.shape, scores.shape) == ((1, 32, 32), (1,))
    assert maps.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(maps, given.mean(3) / 255, atol=1e-6)
    assert scores[0] == maps.max()


def test_classes_are_fed_by_frame(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path, classes=("a", "b"), dynamic=True, max_batch=2)
    backend = create_backend(Bundle.open(folder), device="cpu", threads=1)
    given = frames(2)
    maps, _ = backend.run(given, np.array([0, 1]))
    np.testing.assert_allclose(maps[0], given[0].mean(2) / 255, atol=1e-6)
    np.testing.assert_allclose(maps[1], 1 - given[1].mean(2) / 255, atol=1e-6)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="which kernels there are differs")
def test_quantised_products_are_multiplied_as_such(monkeypatch, tmp_path):
    """Each with a bias was once made a Gemm of float32, which took three times as long."""
    bundle = Bundle.open(shipped_bundle().with_name("nano-int8.kanoclip"))
    session = onnxruntime.InferenceSession

    def keeping(path, settings, **more):
        settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        return session(path, settings, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", keeping)
    create_backend(bundle, "onnxruntime", "cpu", threads=1).close()
    stored = onnx.load(bundle.model_path).graph.node
    kinds = {name: node.op_type for node in stored for name in node.output}
    of_int8 = [
        node
        for node in stored
        if node.op_type == "MatMul" and [kinds.get(name) for name in node.input] == ["DequantizeLinear"] * 2
    ]
    run = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert of_int8 and run.count("MatMulIntegerToFloat") == len(of_int8)


def test_a_failing_run_is_one_line(bundle):
    backend = create_backend(bundle, device="cpu", threads=1)
    with pytest.raises(BackendError, match="onnxruntime-cpu failed: ") as caught:
        backend.run(frames(2), None)
    assert len(str(caught.value).splitlines()) == 1
    assert backend.run(frames(), None)[0].shape == (1, 32, 32)


def test_a_provider_that_fails_in_a_run_is_never_replaced_silently(bundle, capfd):
    """Left alone, ONNX Runtime prints to standard output, starts again on the CPU and answers."""
    backend = create_backend(bundle, device="cpu", threads=1)
    inner = backend._session._sess

    class Failing:
        def run(self, *arguments):
            raise onnxruntime.capi._pybind_state.EPFail("CUDA failure 700:\nillegal memory access")

        def __getattr__(self, name):
            return getattr(inner, name)

    backend._session._sess = Failing()
    with pytest.raises(BackendError, match="onnxruntime-cpu failed: CUDA failure 700: illegal") as caught:
        backend.run(frames(), None)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_raises_when_it_starts(bundle, monkeypatch):
    module = types.SimpleNamespace(
        SessionOptions=onnxruntime.SessionOptions,
        get_available_providers=lambda: ALL,
        cuda_version="13.0",
        __file__="/nowhere/onnxruntime/__init__.py",
    )

    def session(*arguments, **options):
        raise RuntimeError("CUDA failure 35:\nno driver")

    module.InferenceSession = session
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    words = [str(bundle.model_path), "on cuda", "CUDA failure 35: no driver", "CUDA 13", "--device cpu"]
    refused(bundle, device="cuda", words=words)


@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
def test_auto_goes_on_with_the_cpu_where_the_gpu_does_not_start(bundle, monkeypatch, caplog, name):
    """ONNX Runtime lists CUDA wherever its wheel for GPUs is installed, whether it finds CUDA's libraries or not."""
    fake_runtime(monkeypatch, ALL, started=["CPUExecutionProvider"])
    monkeypatch.setattr(engines, "installed_versions", lambda names: {"onnxruntime-gpu": "1.31.1"})
    found = create_backend(bundle, name, threads=1)
    assert found.name in ("onnxruntime-cpu", "openvino-cpu")
    assert found.fallback is not None and "could not start it" in found.fallback
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == f"the GPU is not used, and the CPU scores instead: {found.fallback}"
    assert "gpu-cu12" in line and found.run(frames(), None)[0].shape == (1, 32, 32)
    refused(bundle, name, "cuda", words=["has cuda but could not start it"])


def test_the_loaders_own_reason_is_passed_on(bundle, monkeypatch, tmp_path):
    """Real libraries and the real loader: the provider's needs one that is not there."""
    capi = tmp_path / "capi"
    capi.mkdir()
    for name in ("shared", "cuda"):
        (tmp_path / f"{name}.c").write_text("int provider(void) { return 0; }\n")
    compiler = shutil.which("cc") or pytest.skip("no compiler")
    missing = capi / "libcublasLt.so.99"
    build = [compiler, "-shared", "-fPIC", str(tmp_path / "cuda.c"), "-o"]
    subprocess.run([*build, str(missing)], check=True)
    subprocess.run([*build, str(capi / "libonnxruntime_providers_shared.so")], check=True)
    subprocess.run(
        [
            *build,
            str(capi / "libonnxruntime_providers_cuda.so"),
            "-Wl,--no-as-needed",
            f"-L{capi}",
            "-l:libcublasLt.so.99",
        ],
        check=True,
    )
    missing.unlink()
    words = ["has cuda but could not start it (libcublasLt.so.99: cannot open shared object file", "gpu-cu12"]
    for options in ({"started": ["CPUExecutionProvider"]}, {"refuses": ("device_id",)}):  # 1.31 raises for TensorRT
        fake_runtime(monkeypatch, ALL, **options)
        monkeypatch.setattr(sys.modules["onnxruntime"], "__file__", str(tmp_path / "__init__.py"))
        refused(bundle, "onnxruntime", "cuda", words=words)


def test_cudas_libraries_are_loaded_before_a_session_is_made(bundle, monkeypatch, tmp_path, capfd):
    """pip lays them where the system's loader does not look; TensorRT's likewise."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for backend, expected in (("onnxruntime", ["cuda"]), ("onnxruntime-tensorrt", ["tensorrt", "cuda"])):
        made, loaded = fake_runtime(monkeypatch, ALL), []

        def preload(loaded=loaded, made=made):
            assert not made
            print("Failed to load libcufft.so.12")
            loaded.append("cuda")

        monkeypatch.setattr(sys.modules["onnxruntime"], "preload_dlls", preload, raising=False)
        monkeypatch.setattr(backend_module.importlib, "import_module", loaded.append)
        create_backend(bundle, backend, "cuda")
        assert loaded == expected
    assert capfd.readouterr().out == "", "standard output is for results"


@pytest.mark.parametrize(("precision", "expected"), [("fp32", 0), ("fp16", None)])
def test_float32_is_not_rounded_to_tf32(bundle, monkeypatch, caplog, tmp_path, precision, expected):
    made = fake_runtime(monkeypatch, ALL)
    create_backend(changed(bundle, precision=precision), "onnxruntime", "cuda")
    assert made[0][2][0][1].get("use_tf32") == expected
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    create_backend(changed(bundle, precision=precision), "onnxruntime-tensorrt", "cuda")
    assert ("set NVIDIA_TF32_OVERRIDE=0" in caplog.text) is (expected == 0)


@pytest.mark.parametrize("name", ["", "tensorflow", "ONNXRUNTIME", "onnxruntime "])
def test_unknown_backends(bundle, name):
    refused(bundle, name, words=[f"'{name}'", *BACKENDS])


@pytest.mark.parametrize("device", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu\n", "cpu:0", "cuda:0\n"])
def test_unknown_devices(bundle, device):
    refused(bundle, "auto", device, words=["unknown device", "auto, cpu, cuda or cuda:N"])


def test_tensorrt_needs_a_gpu(bundle):
    refused(bundle, "onnxruntime-tensorrt", "cpu", words=["needs a GPU", "--device"])


@pytest.mark.skipif(not NO_CUDA, reason="this onnxruntime has CUDA")
@pytest.mark.parametrize(
    ("backend", "device", "wanted"),
    [("auto", "cuda", "cuda"), ("onnxruntime", "cuda:1", "cuda"), ("onnxruntime-tensorrt", "auto", "tensorrt")],
)
def test_a_gpu_that_is_not_there_is_never_replaced_silently(bundle, backend, device, wanted):
    refused(bundle, backend, device, words=[f"no {wanted} provider", "it has cpu", "edge[gpu]", "--device cpu"])


@pytest.mark.parametrize("started", [["CPUExecutionProvider"], []])
@pytest.mark.parametrize(("backend", "wanted"), [("auto", "cuda"), ("onnxruntime-tensorrt", "tensorrt")])
def test_a_provider_that_does_not_start_is_an_error(bundle, monkeypatch, tmp_path, started, backend, wanted):
    """ONNX Runtime then goes on with the CPU and only logs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake_runtime(monkeypatch, ALL, started)
    refused(bundle, backend, "cuda", words=[f"has {wanted} but could not start it", "--device cpu"])


@pytest.mark.parametrize(
    ("backend", "device", "provider", "number"),
    [
        ("auto", "cpu", "CPUExecutionProvider", None),
        ("auto", "auto", "CUDAExecutionProvider", 0),
        ("onnxruntime", "cuda", "CUDAExecutionProvider", 0),
        ("onnxruntime", "cuda:3", "CUDAExecutionProvider", 3),
        ("onnxruntime-tensorrt", "auto", "TensorrtExecutionProvider", 0),
        ("onnxruntime-tensorrt", "cuda:1", "TensorrtExecutionProvider", 1),
    ],
)
def test_which_provider_is_asked_for(bundle, monkeypatch, tmp_path, backend, device, provider, number):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = fake_runtime(monkeypatch, ALL)
    found = create_backend(bundle, backend, device)
    ((path, _, (asked,)),) = made
    assert path == str(bundle.model_path)
    if number is None:
        assert asked == provider
    else:
        assert asked[0] == provider and asked[1]["device_id"] == number
    assert found.name == f"onnxruntime-{provider.removesuffix('ExecutionProvider').lower()}"
    if backend == "onnxruntime-tensorrt":
        cache = tmp_path / "kanoclip" / "onnxruntime-tensorrt"
        assert cache.is_dir() and asked[1]["trt_engine_cache_path"] == str(cache)
        assert asked[1]["trt_engine_cache_enable"] is True


@pytest.mark.parametrize("options", [{}, {"max_batch": 3}, {"max_batch": 4, "dynamic": True}], ids=str)
def test_a_gpu_runs_on_tensors_that_are_bound_once(make_toy_bundle, tmp_path, monkeypatch, options):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", classes=("bolt", "nut"), **options))
    sizes = [2, 4, 2, 2, 1] if options.get("dynamic") else [options.get("max_batch", 1)] * 4
    plain = create_backend(bundle, "onnxruntime", "cpu", threads=1)
    fake_runtime(monkeypatch, ALL)
    device = create_backend(bundle, "onnxruntime", "cuda:2")
    kept = []
    for number, size in enumerate(sizes):
        given = np.random.default_rng(number).integers(0, 256, (size, 32, 32, 3), np.uint8)
        index = np.arange(size, dtype=np.int64) % 2
        maps, scores = device.run(given, index)
        wanted, wanted_scores = plain.run(given, index)
        np.testing.assert_allclose(maps, wanted, atol=1e-6)
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
        kept.append((maps, wanted))
    for maps, wanted in kept:  # the next run did not write into what the caller keeps
        np.testing.assert_allclose(maps, wanted, atol=1e-6)
    tensors = sys.modules["onnxruntime"].OrtValue.made
    assert tensors == [("cuda", 2)] * 4 * len(set(sizes))
    device.close()
    with pytest.raises(BackendError, match="is closed"):
        device.run(given, index)


@pytest.mark.parametrize(
    ("backend", "option"), [("onnxruntime", "enable_cuda_graph"), ("onnxruntime-tensorrt", "trt_cuda_graph_enable")]
)
def test_a_cuda_graph_where_the_batch_is_static_and_the_graph_allows_it(
    make_toy_bundle, tmp_path, monkeypatch, backend, option
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    still, moving = (
        Bundle.open(make_toy_bundle(tmp_path / f"{dynamic}.kanoclip", dynamic=dynamic, max_batch=2))
        for dynamic in (False, True)
    )
    made = fake_runtime(monkeypatch, ALL)
    for bundle in (still, moving):
        create_backend(bundle, backend, "cuda")
    assert [option in providers[0][1] for _, _, providers in made] == [True, False]
    refusing = fake_runtime(monkeypatch, ALL, refuses=[option])
    create_backend(still, backend, "cuda").run(frames(2), None)
    assert [option in providers[0][1] for _, _, providers in refusing] == [False]


def test_a_cache_that_cannot_be_made_is_one_line(bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fake_runtime(monkeypatch, ALL)
    refused(bundle, "onnxruntime-tensorrt", words=[str(tmp_path / "file"), "XDG_CACHE_HOME"])


def test_auto_is_the_cpu_where_there_is_nothing_else(bundle, monkeypatch):
    fake_runtime(monkeypatch, ["CPUExecutionProvider"])
    assert create_backend(bundle).name == "onnxruntime-cpu"


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (3, 3), (None, 2)])
def test_threads(bundle, monkeypatch, threads, expected):
    """By default the cores of this process, not the machine's."""
    made = fake_runtime(monkeypatch, ["CPUExecutionProvider"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 7}, raising=False)
    create_backend(bundle, threads=threads)
    assert made[0][1].intra_op_num_threads == expected
    assert made[0][1].inter_op_num_threads == 1


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_that_make_no_sense(bundle, threads):
    refused(bundle, threads=threads, words=[f"{threads} threads", "at least 1"])


def changed(bundle, **changes):
    return replace(bundle, manifest=replace(bundle.manifest, **changes))


@pytest.mark.parametrize(
    ("kind", "specs"),
    [
        ("inputs", [TensorSpec("frame", "uint8", (2, 32, 32, 3))]),
        ("inputs", [TensorSpec("frame", "uint8", ("batch", 32, 32, 3))]),
        ("inputs", [TensorSpec("frame", "uint8", (1, 64, 64, 3))]),
        ("inputs", [TensorSpec("frame", "uint8", (1, 32, 32, 3)), TensorSpec("class_index", "int64", (1,))]),
        ("outputs", [TensorSpec("map", "float32", (1, 32, 32))]),
        ("outputs", [TensorSpec("score", "float32", (1,)), TensorSpec("map", "float32", (1, 32, 32))]),
        ("outputs", [TensorSpec("map", "float32", (1, 32, 33)), TensorSpec("score", "float32", (1,))]),
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says(bundle, kind, specs):
    refused(
        changed(bundle, **{kind: tuple(specs)}), device="cpu", words=[str(bundle.root), f"the graph's {kind}", "again"]
    )


@pytest.mark.parametrize("data", [b"not a graph", b"\x08\x09"], ids=["text", "no graph"])
def test_a_file_that_is_no_graph(make_toy_bundle, tmp_path, data):
    """Its digest is right: it was made so."""
    folder = make_toy_bundle(tmp_path)
    (folder / "model.onnx").write_bytes(data)
    info = FileInfo(sha256_of(folder / "model.onnx"), len(data))
    path = folder / "manifest.json"
    path.write_text(replace(read_manifest(path.read_text()), files={"model.onnx": info}).to_json())
    refused(Bundle.open(folder), device="cpu", words=["cannot load", str(folder / "model.onnx"), "on cpu"])


def test_bf16_does_not_run_on_a_cpu(make_toy_bundle, tmp_path):
    bundle = Bundle.open(make_toy_bundle(tmp_path, bf16=True))
    refused(bundle, device="cpu", words=[str(tmp_path), "bf16", "no CPU provider", "--fp16 or --fp32"])


def test_onnxruntime_missing(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    refused(
        bundle, "onnxruntime", words=["no inference engine", "pip install 'kanoclip-edge[cpu]'", "kanoclip-edge[gpu]"]
    )


def test_onnxruntime_half_uninstalled(bundle, monkeypatch):
    """Removing one of two that were both installed leaves an empty package behind."""
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    refused(bundle, words=["onnxruntime is broken", "install one extra again"])


def test_both_installed_is_hinted_at(bundle, monkeypatch):
    monkeypatch.setattr(backend_module.metadata, "version", lambda name: "1")
    fake_runtime(monkeypatch, ["CPUExecutionProvider"])
    refused(bundle, device="cuda", words=["both installed", "uninstall both"])
    monkeypatch.undo()
    if NO_CUDA:
        assert "both installed" not in refused(bundle, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "engine"), [("onnxruntime", "cuda"), ("onnxruntime-tensorrt", "tensorrt")])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_gpu_gives_what_the_cpu_gives(make_toy_bundle, tmp_path, monkeypatch, name, engine, dynamic):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_toy_bundle(tmp_path / "bundle", classes=("a", "b"), dynamic=dynamic, max_batch=3)
    bundle, given, index = Bundle.open(folder), frames(3), np.array([0, 1, 0])
    backend = create_backend(bundle, name, "cuda")
    assert backend.name == f"onnxruntime-{engine}"
    maps, scores = backend.run(given, index)
    wanted_maps, wanted_scores = create_backend(bundle, "onnxruntime", "cpu").run(given, index)
    np.testing.assert_allclose(maps, wanted_maps, atol=1e-3)
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-3)


KINDS = [{}, {"classes": ("a", "b"), "max_batch": 3}, {"classes": ("a", "b"), "max_batch": 4, "dynamic": True}]


@pytest.fixture(params=KINDS, ids=str)
def described(request, make_toy_bundle, tmp_path):
    """A bundle with descriptors on a grid of 4 x 8, and the sizes of batches that it takes."""
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 8), **request.param))
    most = bundle.manifest.max_batch
    return bundle, [2, most, 1, most] if bundle.manifest.dynamic_batch else [most] * 3


def indices(bundle, rows):
    return np.arange(rows, dtype=np.int64) % 2 if len(bundle.manifest.classes) > 1 else None


def test_descriptors_of_a_batch(described, toy_descriptors):
    bundle, sizes = described
    backend = create_backend(bundle, "onnxruntime", "cpu", threads=1)
    for size in sizes:
        given = frames(size)
        found = backend.describe(given)
        assert (found.shape, found.dtype) == ((size, 32, 3), np.float32)
        np.testing.assert_allclose(found, toy_descriptors(given, (4, 8)), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)
        assert backend.run(given, indices(bundle, size))[0].shape == (size, 32, 32)


def test_descriptors_are_fetched_only_where_they_are_wanted(described, monkeypatch):
    bundle, (size, *_) = described
    backend = create_backend(bundle, "onnxruntime", "cpu", threads=1)
    asked, run = [], backend._session.run
    monkeypatch.setattr(backend._session, "run", lambda names, inputs: asked.append(names) or run(names, inputs))
    backend.run(frames(size), indices(bundle, size))
    backend.describe(frames(size))
    assert asked == [["map", "score"], ["descriptor"]]


def test_a_gpu_copies_descriptors_only_where_they_are_wanted(described, monkeypatch, toy_descriptors):
    bundle, sizes = described
    fake_runtime(monkeypatch, ALL)
    device = create_backend(bundle, "onnxruntime", "cuda")
    copied, numpy = [], onnxruntime.OrtValue.numpy
    monkeypatch.setattr(onnxruntime.OrtValue, "numpy", lambda self: copied.append(self.shape()) or numpy(self))
    kept = []
    for seed, size in enumerate(sizes):
        given = np.random.default_rng(seed).integers(0, 256, (size, 32, 32, 3), np.uint8)
        maps, _ = device.run(given, indices(bundle, size))
        assert copied == [[size, 32, 32], [size]]
        copied.clear()
        kept.append((device.describe(given), toy_descriptors(given, (4, 8))))
        assert copied == [[size, 32, 3]]
        copied.clear()
        assert maps.shape == (size, 32, 32)
    for found, wanted in kept:  # the next run did not write into what the caller keeps
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    tensors = len(bundle.manifest.inputs) + 3
    assert sys.modules["onnxruntime"].OrtValue.made == [("cuda", 0)] * tensors * len(set(sizes)), "bound once"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_bundle_without_descriptors_says_so(bundle, backend):
    engine = create_backend(bundle, backend, "cpu", threads=1)
    with pytest.raises(BackendError, match=r"has no descriptor output, .*: export it again") as caught:
        engine.describe(frames())
    assert str(bundle.root) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_descriptors_of_a_closed_engine(make_toy_bundle, tmp_path, backend):
    engine = create_backend(Bundle.open(make_toy_bundle(tmp_path, grid=(4, 4))), backend, "cpu", threads=1)
    with pytest.raises(BackendError, match=f"{backend}-cpu failed: "):
        engine.describe(frames(2))
    engine.close()
    with pytest.raises(BackendError, match=f"{backend}-cpu is closed"):
        engine.describe(frames())


def test_descriptors_that_the_manifest_does_not_list(make_toy_bundle, tmp_path):
    bundle = Bundle.open(make_toy_bundle(tmp_path, grid=(4, 4)))
    wanted = [str(bundle.root), "the graph's outputs"]
    refused(changed(bundle, outputs=bundle.manifest.outputs[:2], descriptor=None), device="cpu", words=wanted)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_memory_is_given_with_a_run(
    make_toy_bundle, make_memory, toy_answers, tmp_path, monkeypatch, dynamic, device
):
    bundle = Bundle.open(
        make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 8), memory_rows=16, max_batch=2, dynamic=dynamic)
    )
    if device == "cuda":
        fake_runtime(monkeypatch, ALL)
    backend = create_backend(bundle, "onnxruntime", device)
    given = frames(2)
    plain = backend.run(given, None)
    described = backend.describe(given)
    for rows, seed in ((1, 1), (16, 2), (5, 3)):
        memory = make_memory(rows, seed)
        for found, wanted in zip(backend.run(given, None, memory), toy_answers(given, described, memory), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
        for found, before in zip(backend.run(given, None), plain, strict=True):
            np.testing.assert_array_equal(found, before)  # bit for bit, whatever was there a run ago


def test_a_gpu_is_given_a_memory_once(make_toy_bundle, make_memory, tmp_path, monkeypatch):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 8), memory_rows=16))
    fake_runtime(monkeypatch, ALL)
    backend = create_backend(bundle, "onnxruntime", "cuda")
    copied, update = [], onnxruntime.OrtValue.update_inplace
    monkeypatch.setattr(
        onnxruntime.OrtValue, "update_inplace", lambda self, value: copied.append(value.shape) or update(self, value)
    )
    frame, whole = (1, 32, 32, 3), [(16, 3), (16,), (3,), (8,)]
    first, second = make_memory(4, 1), make_memory(9, 2)
    for memory, expected in ((first, whole), (first, []), (second, whole), (None, whole), (None, []), (first, whole)):
        copied.clear()
        backend.run(frames(), None, memory)
        assert copied == [frame, *expected]


def test_a_memory_for_a_graph_that_takes_none(bundle, make_memory):
    backend = create_backend(bundle, "onnxruntime", "cpu")
    with pytest.raises(BackendError, match=r"the bundle toy takes no reference memory: export it again"):
        backend.run(frames(), None, make_memory(4))
