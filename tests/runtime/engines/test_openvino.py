"""OpenVINO: the answers of ONNX Runtime, in arrays that the caller may keep, or one line that says why not."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest

import kanoclip.runtime.bundle.shipped
from kanoclip.runtime.bundle.bundle import Bundle, sha256_of
from kanoclip.runtime.bundle.manifest.parts import FileInfo
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.signature import TensorSpec
from kanoclip.runtime.engines import CPU_ONLY, create_backend
from kanoclip.runtime.engines import openvino as backend_module
from kanoclip.runtime.engines.reference import Reference
from kanoclip.runtime.errors import BackendError

openvino = pytest.importorskip("openvino")
SHIPPED = sorted(Path(kanoclip.runtime.bundle.shipped.__file__).parent.glob("*.kanoclip"))
CORE = backend_module.shared_core()  # two that overlap end the process at its next signal
CAN_BF16 = "BF16" in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def bundle(toy_bundle):
    return Bundle.open(toy_bundle)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kanoclip" / "openvino" / "f32"


def frames(count=1, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def refused(bundle, backend="openvino", *arguments, words=(), **options):
    with pytest.raises(BackendError) as caught:
        create_backend(bundle, backend, *arguments, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_bundles_give_the_reference_answers(folder):
    bundle = Bundle.open(folder)
    reference = Reference(bundle)
    backend = create_backend(bundle, "openvino")
    found = reference.compare(reference.run(backend))
    assert backend.name == found.backend == "openvino-cpu"
    assert found.agrees, found
    if bundle.manifest.precision == "fp32":
        assert found.map_drift < 1e-5 and found.score_drift < 1e-5, "float32 means float32"


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_classes_and_batches(make_toy_bundle, tmp_path, dynamic, device):
    """The toy's second class inverts the map."""
    bundle = Bundle.open(make_toy_bundle(tmp_path, classes=("a", "b"), dynamic=dynamic, max_batch=3))
    backend = create_backend(bundle, "openvino", device, threads=1)
    for count, index in ((3, [0, 1, 0]), (3, [1, 1, 0]), *(((1, [1]), (2, [0, 1])) if dynamic else ())):
        given = frames(count)
        maps, scores = backend.run(given, np.array(index))
        plain = given.mean(3) / 255
        wanted = np.where(np.array(index)[:, None, None] == 1, 1 - plain, plain)
        assert maps.dtype == scores.dtype == np.float32
        np.testing.assert_allclose(maps, wanted, atol=1e-6)
        np.testing.assert_allclose(scores, wanted.max((1, 2)), atol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("classes", [("a",), ("a", "b")])
def test_descriptors(make_toy_bundle, tmp_path, toy_descriptors, classes, dynamic):
    bundle = Bundle.open(make_toy_bundle(tmp_path, classes=classes, dynamic=dynamic, max_batch=3, grid=(4, 8)))
    backend = create_backend(bundle, "openvino", threads=1)
    kept = []
    for seed, count in enumerate((3, 3, 1, 2) if dynamic else (3, 3)):
        given = frames(count, seed=seed)
        kept.append((backend.describe(given), toy_descriptors(given, (4, 8))))
        assert backend.run(given, np.zeros(count, np.int64) if len(classes) > 1 else None)[1].shape == (count,)
    for found, wanted in kept:  # what is the caller's stays what it was
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_only_what_is_wanted_is_read(make_toy_bundle, tmp_path):
    """Outputs are views of the request's own memory; one is copied where it is looked up."""
    backend = create_backend(Bundle.open(make_toy_bundle(tmp_path, grid=(4, 4))), "openvino", threads=1)
    request, read = backend._requests.get(), []

    class Answer(dict):
        def __getitem__(self, number):
            read.append(number)
            return super().__getitem__(number)

    class Watched:
        def infer(self, inputs, share_inputs, share_outputs):
            assert share_inputs and share_outputs
            found = request.infer(inputs, share_inputs=True, share_outputs=True)
            return Answer({number: found[number] for number in range(3)})

    backend._requests.put(Watched())
    maps, scores = backend.run(frames(), None)
    assert read == [0, 1] and scores[0] == maps.max()
    assert backend.describe(frames()).shape == (1, 16, 3) and read == [0, 1, 2]


def test_answers_stay_what_they_were(bundle):
    """`Detection.map` is the caller's; the engine uses its one request again."""
    backend = create_backend(bundle, "openvino", threads=1)
    first, second = frames(), frames(seed=1)
    maps, scores = backend.run(first, None)
    kept = maps.copy(), scores.copy()
    backend.run(second, None)
    np.testing.assert_array_equal(maps, kept[0])
    np.testing.assert_array_equal(scores, kept[1])
    maps[:] = 0.5
    np.testing.assert_array_equal(backend.run(first, None)[0], kept[0])
    backend.close()
    assert (maps == 0.5).all()


@pytest.mark.parametrize("change", [lambda x: x[:, ::-1], lambda x: x[..., ::-1], np.asfortranarray])
def test_frames_of_any_layout(bundle, change):
    given = frames()
    changed = change(given)
    changed.flags.writeable = False
    found = create_backend(bundle, "openvino").run(changed, None)[0]
    np.testing.assert_allclose(found, changed.mean(3) / 255, atol=1e-6)


def test_a_failing_run_is_one_line_and_the_next_one_works(bundle):
    backend = create_backend(bundle, "openvino", threads=1)
    with pytest.raises(BackendError, match="openvino-cpu failed: ") as caught:
        backend.run(frames(2), None)
    assert len(str(caught.value).splitlines()) == 1
    assert backend.run(frames(), None)[0].shape == (1, 32, 32)


def test_a_closed_engine_says_so(bundle):
    backend = create_backend(bundle, "openvino", threads=1)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="openvino-cpu is closed: load the bundle again"):
        backend.run(frames(), None)


@pytest.mark.parametrize("backend", sorted(CPU_ONLY))
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_no_gpu(bundle, backend, device):
    refused(bundle, backend, device, words=[backend, "runs on the CPU", "--device"])


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_that_make_no_sense(bundle, threads):
    refused(bundle, threads=threads, words=[f"{threads} threads", "at least 1"])


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_a_graph_that_is_not_the_manifests(make_toy_bundle, tmp_path, kind):
    """The graph is swapped for one of another size or type, with a right digest."""
    other = make_toy_bundle(tmp_path / "other", size=16)
    folder = make_toy_bundle(tmp_path / "toy")
    data = (other / "model.onnx").read_bytes()
    if kind == "outputs":  # the same frame, one output too few
        import onnx

        model = onnx.load(folder / "model.onnx")
        del model.graph.output[1]
        data = model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    path = folder / "manifest.json"
    files = {"model.onnx": FileInfo(sha256_of(folder / "model.onnx"), len(data))}
    path.write_text(replace(read_manifest(path.read_text()), files=files).to_json())
    refused(Bundle.open(folder), words=[str(folder), f"the graph's {kind}", "again"])


def test_a_dynamic_axis_is_told_from_a_fixed_one(make_toy_bundle, tmp_path):
    bundle = Bundle.open(make_toy_bundle(tmp_path, dynamic=True, max_batch=2))
    fixed = [replace(spec, shape=(2, *spec.shape[1:])) for spec in bundle.manifest.inputs]
    assert fixed[0] == TensorSpec("frame", "uint8", (2, 32, 32, 3))
    refused(Bundle(bundle.root, replace(bundle.manifest, inputs=tuple(fixed))), words=["the graph's inputs"])


@pytest.mark.parametrize("data", [b"not a graph", b"\x08\x09"], ids=["text", "no graph"])
def test_a_file_that_is_no_graph(make_toy_bundle, tmp_path, data):
    folder = make_toy_bundle(tmp_path)
    (folder / "model.onnx").write_bytes(data)
    path = folder / "manifest.json"
    files = {"model.onnx": FileInfo(sha256_of(folder / "model.onnx"), len(data))}
    path.write_text(replace(read_manifest(path.read_text()), files=files).to_json())
    refused(Bundle.open(folder), words=[str(folder)])


@pytest.mark.skipif(CAN_BF16, reason="this processor has bfloat16")
def test_bf16_is_refused_where_the_processor_lacks_it(bundle):
    refused(bundle, "openvino-bf16", words=["no bfloat16", "--backend openvino"])


@pytest.mark.skipif(not CAN_BF16, reason="this processor has no bfloat16")
@pytest.mark.parametrize("order", [("openvino", "openvino-bf16"), ("openvino-bf16", "openvino")], ids="-then-".join)
def test_precisions_agree_within_their_bounds_whichever_was_compiled_first(cache, order):
    """Twice, and the second time from the cache: OpenVINO does not tell them apart in it."""
    bundle = Bundle.open(SHIPPED[-1])
    reference = Reference(bundle)
    for backend in order * 2:
        found = reference.compare(reference.run(create_backend(bundle, backend)))
        assert found.backend == f"{backend}-cpu" and found.agrees, found
        assert (found.map_drift > 1e-5) is (backend == "openvino-bf16"), found
    assert len(list(cache.parent.glob("*/*.blob"))) == 2


class FakeCore:
    """Stands before the real core and keeps what was asked of it; a graph compiles in float32 whatever is asked."""

    made: list[dict]
    capabilities = ("FP32", "BF16")
    fails_with_cache = False

    def __init__(self):
        self.inner = CORE

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return list(self.capabilities)

    def read_model(self, path):
        return self.inner.read_model(path)

    def compile_model(self, model, device, settings):
        self.made.append(settings)
        if self.fails_with_cache and "CACHE_DIR" in settings:
            raise RuntimeError("no space left on device")
        return self.inner.compile_model(model, device, settings | {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.fixture
def fake_core(monkeypatch):
    class Core(FakeCore):
        made: ClassVar[list] = []

    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=Core))
    return Core


@pytest.mark.parametrize(
    ("backend", "name", "hint"),
    [("openvino", "openvino-cpu", "f32"), ("openvino-bf16", "openvino-bf16-cpu", "bf16")],
)
@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (3, 3), (None, 5)])
def test_what_the_engine_is_asked_for(bundle, monkeypatch, fake_core, backend, name, hint, threads, expected):
    """Precision is never left to OpenVINO, nor the number of threads: by default this process's cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 2, 4, 7, 9}, raising=False)
    assert create_backend(bundle, backend, threads=threads).name == name
    (settings,) = fake_core.made
    assert settings["INFERENCE_PRECISION_HINT"] == hint
    assert settings["INFERENCE_NUM_THREADS"] == expected
    assert settings["PERFORMANCE_HINT"] == "LATENCY" and settings["NUM_STREAMS"] == 1


def test_no_precision_loads_what_another_compiled(bundle, fake_core, cache):
    """On every processor: the names are checked, not what OpenVINO makes of them."""
    for backend in ("openvino", "openvino-bf16"):
        create_backend(bundle, backend)
    assert [settings["CACHE_DIR"] for settings in fake_core.made] == [str(cache), str(cache.with_name("bf16"))]


def test_compiled_graphs_are_kept_and_read_again(bundle, cache):
    first = create_backend(bundle, "openvino").run(frames(), None)
    (blob,) = cache.glob("*.blob")
    written = blob.stat().st_mtime_ns
    again = create_backend(bundle, "openvino").run(frames(), None)
    assert [path.stat().st_mtime_ns for path in cache.glob("*.blob")] == [written]
    np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.parametrize("content", [b"", b"\0" * 100, None], ids=["empty", "zeros", "cut short"])
def test_a_damaged_cache_is_made_again(bundle, cache, content):
    wanted = create_backend(bundle, "openvino").run(frames(), None)
    (blob,) = cache.glob("*.blob")
    blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2] if content is None else content)
    np.testing.assert_array_equal(create_backend(bundle, "openvino").run(frames(), None)[0], wanted[0])


def test_a_cache_that_cannot_be_made_breaks_nothing(bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert create_backend(bundle, "openvino").run(frames(), None)[0].shape == (1, 32, 32)


def test_a_cache_that_cannot_be_written_breaks_nothing(bundle, monkeypatch, cache, fake_core):
    """A full disk; and, since root may write anywhere, a folder that the system says is not to be written."""
    fake_core.fails_with_cache = True
    assert create_backend(bundle, "openvino").run(frames(), None)[0].shape == (1, 32, 32)
    assert ["CACHE_DIR" in settings for settings in fake_core.made] == [True, False]
    monkeypatch.setattr(backend_module.os, "access", lambda path, mode: False)
    fake_core.made.clear()
    assert create_backend(bundle, "openvino").run(frames(), None)[0].shape == (1, 32, 32)
    assert ["CACHE_DIR" in settings for settings in fake_core.made] == [False]


def test_openvino_missing(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    refused(bundle, words=["OpenVINO is not installed", "pip install 'kanoclip-edge[openvino]'"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('libtbb.so.12: cannot open shared object file')", ["libtbb.so.12", "install it again"]),
        ("import a_part_of_it_that_is_gone", ["a_part_of_it_that_is_gone", "install it again"]),
        ("", ["is broken", "install it again"]),
    ],
)
def test_openvino_broken(bundle, monkeypatch, tmp_path, source, words):
    """Removing a package by halves leaves an empty one behind."""
    (tmp_path / "openvino.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino")
    refused(bundle, words=["openvino is broken", *words])
    sys.modules.pop("openvino", None)


def test_a_processor_that_openvino_does_not_know(bundle, monkeypatch):
    def core():
        raise RuntimeError("Exception from core.cpp:92:\n[ GENERAL_ERROR ] no plugin")

    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=core))
    refused(bundle, words=["cannot use this processor", "no plugin", "--backend onnxruntime"])


def test_signals_are_handled_after_engines_that_overlapped(toy_bundle):
    script = (
        "import gc, os, signal, sys\n"
        "from kanoclip.runtime.engines import create_backend\n"
        "from kanoclip.runtime.bundle.bundle import Bundle\n"
        "bundle = Bundle.open(sys.argv[1])\n"
        "engines = [create_backend(bundle, 'openvino') for _ in range(2)]\n"
        "while engines:\n"
        "    engines.pop(0).close()\n"
        "    gc.collect()\n"
        "signal.signal(signal.SIGINT, lambda *_: print('handled'))\n"
        "os.kill(os.getpid(), signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(toy_bundle)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_lanes_run_side_by_side(bundle, backend):
    """Many threads at once, each with frames of its own, get each their own answers."""
    engine = create_backend(bundle, backend, "cpu", threads=2, workers=2)
    assert engine.workers == 2

    def ask(seed):
        given = frames(seed=seed)
        maps, scores = engine.run(given, None)
        return np.abs(maps - given.mean(3) / 255).max() < 1e-6 and scores[0] == maps.max()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))


@pytest.mark.parametrize(("threads", "workers", "own"), [(4, 1, 4), (4, 2, 3), (2, 2, 1), (1, 2, 1)])
def test_workers_share_the_threads(bundle, monkeypatch, fake_core, threads, workers, own):
    create_backend(bundle, "openvino", threads=threads, workers=workers)
    assert fake_core.made[0]["NUM_STREAMS"] == workers and fake_core.made[0]["INFERENCE_NUM_THREADS"] == threads
    asked = []
    real = onnxruntime.InferenceSession

    def session(path, settings, **options):
        asked.append(settings.intra_op_num_threads)
        return real(path, settings, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    create_backend(bundle, "onnxruntime", "cpu", threads=threads, workers=workers)
    assert asked == [own]  # beside the workers' own threads


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_memory_is_given_with_a_run(make_toy_bundle, make_memory, toy_answers, tmp_path, dynamic):
    bundle = Bundle.open(
        make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 8), memory_rows=16, max_batch=2, dynamic=dynamic)
    )
    backend = create_backend(bundle, "openvino")
    given = frames(2)
    plain, described = backend.run(given, None), backend.describe(given)
    for rows, seed in ((1, 1), (16, 2), (5, 3)):
        memory = make_memory(rows, seed)
        for found, wanted in zip(backend.run(given, None, memory), toy_answers(given, described, memory), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
        for found, before in zip(backend.run(given, None), plain, strict=True):
            np.testing.assert_array_equal(found, before)
