"""The backend on a GPU of host memory (see conftest.py): memory, order, graphs, faults, where its engine is from."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kanoclip.runtime.bundle.manifest.parts import EngineInfo
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.engines.onnxruntime.backend import OnnxRuntimeBackend
from kanoclip.runtime.engines.tensorrt import device, execution
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend
from kanoclip.runtime.engines.tensorrt.device import platform_name
from kanoclip.runtime.engines.tensorrt.open_device import open_device
from kanoclip.runtime.errors import BackendError, DeviceLostError

ENGINE = json.dumps({}).encode()


def silent(step, share):
    pass


def frames(machine, seed=0, rows=None):
    manifest = machine.bundle.manifest
    shape = (rows or manifest.max_batch, *manifest.frame_size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def open_backend(machine, **options):
    return TensorRtBackend(machine.bundle, machine.flavour.name, "cuda", silent, **options)


def assert_right(machine, backend, seed=0, rows=None):
    given = frames(machine, seed, rows)
    several = len(machine.bundle.manifest.classes) > 1
    index = np.arange(len(given), dtype=np.int64) % 2 if several else None
    plain = OnnxRuntimeBackend(machine.bundle, "cpu", tensorrt=False, threads=1)
    maps, scores = backend.run(given, index)
    expected_maps, expected_scores = plain.run(given, index)
    np.testing.assert_allclose(maps, expected_maps, atol=1e-6)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    return maps


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"classes": ("bolt", "nut"), "max_batch": 3}, {"max_batch": 4, "dynamic": True}], ids=str
)
def test_right_answers_frame_after_frame(make_machine, builds, flavour, integrated, options):
    machine = make_machine(flavour, integrated=integrated, **options)
    backend = open_backend(machine)
    assert backend.name == f"{flavour}-cuda"
    rows = [1, 4, 2, 4, 1] if options.get("dynamic") else [None] * 5
    kept = [assert_right(machine, backend, seed, count) for seed, count in enumerate(rows)]
    copies = [one.copy() for one in kept]
    assert_right(machine, backend, 9)
    for mine, copy in zip(kept, copies, strict=True):  # Detection.map belongs to the caller
        np.testing.assert_array_equal(mine, copy)
    backend.close()
    backend.close()
    assert not machine.cuda.memory and not machine.cuda.graphs, "memory of the GPU is left"
    with pytest.raises(BackendError, match="is closed"):
        backend.run(frames(machine), None)


def test_full_tensorrt_runs_once_and_is_then_replayed_as_a_graph(make_machine, builds):
    machine = make_machine("tensorrt")
    backend = open_backend(machine)
    context, launches = machine.trt.contexts[-1], machine.cuda.launches
    for seed in range(4):
        assert_right(machine, backend, seed)
    assert context.runs == 2, "once as it is, once to be captured"
    assert machine.cuda.launches - launches == 3


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("cudaStreamBeginCapture", 900),
        ("cudaStreamEndCapture", 901),
        ("cudaGraphInstantiate", 2),
        ("execute", None),
    ],
)
def test_a_refused_graph_is_no_lost_gpu(make_machine, builds, monkeypatch, caplog, call, status):
    machine = make_machine("tensorrt", samples=0)
    backend = open_backend(machine)
    caplog.clear()
    if status is not None:
        machine.cuda.fail[call] = status
    else:
        context = machine.trt.contexts[-1]
        execute = context.execute_async_v3
        monkeypatch.setattr(
            context, "execute_async_v3", lambda stream: machine.cuda.captured is None and execute(stream)
        )
    for seed in range(3):
        assert_right(machine, backend, seed)
    assert machine.cuda.launches == 0 and machine.cuda.forgotten == 1, "the next call would meet this error"
    (line,) = caplog.messages
    assert "tensorrt-cuda runs without a CUDA graph" in line
    backend.close()
    assert machine.cuda.resets == 0 and not machine.cuda.memory


def test_rtx_captures_by_itself(make_machine, builds):
    machine = make_machine("tensorrt-rtx")
    backend = open_backend(machine)
    context = machine.trt.contexts[-1]
    for seed in range(3):
        assert_right(machine, backend, seed)
    assert context.runs == 3 and machine.cuda.launches == 0
    assert context.engine.config.cuda_graph_strategy == machine.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE


def test_each_batch_size_is_a_graph_of_its_own(make_machine, builds):
    machine = make_machine("tensorrt", max_batch=4, dynamic=True, samples=0)
    backend = open_backend(machine)
    (_, addresses) = [dict(one.addresses) for one in machine.trt.contexts]
    assert backend.recorded == ()
    for seed, rows in enumerate([2, 2, 3, 2, 4, 3, 3, 1, 2]):
        assert_right(machine, backend, seed, rows)
    _, *contexts = machine.trt.contexts  # the first one is for a second batch in flight
    assert len(contexts) == 5, "one for any size, and one for each of the four in use"
    assert [one.runs for one in contexts] == [0, 2, 2, 2, 2], "once as it is, once to be captured"
    assert machine.cuda.launches == 9 - 4 and len(machine.cuda.graphs) == 4
    assert [one.shapes["frame"][0] for one in contexts[1:]] == [2, 3, 4, 1]
    # They compute in one memory, one after the other, and read and write the same.
    assert len({one.scratch for one in contexts}) == 1 and all(one.addresses == addresses for one in contexts)
    assert backend.recorded == (2, 3, 4, 1)
    backend.close()
    assert not machine.cuda.memory and not machine.cuda.graphs


def test_there_are_not_more_graphs_than_a_few(make_machine, builds, monkeypatch):
    monkeypatch.setattr(execution, "MOST_GRAPHS", 2)
    machine = make_machine("tensorrt", max_batch=4, dynamic=True, samples=0)
    backend = open_backend(machine)
    for seed, rows in enumerate([1, 2, 3, 4, 4, 3, 1, 2, 3]):
        assert_right(machine, backend, seed, rows)
    assert [one.runs for one in machine.trt.contexts] == [0, 5, 2, 2] and machine.cuda.launches == 2
    assert len(machine.cuda.graphs) == 2, "none is thrown away to be recorded again"


def test_a_refused_graph_of_one_batch_size_leaves_the_others_alone(make_machine, builds, caplog):
    machine = make_machine("tensorrt", max_batch=4, dynamic=True, samples=0)
    backend = open_backend(machine)
    caplog.clear()
    assert_right(machine, backend, 0, 2)
    machine.cuda.fail["cudaStreamEndCapture"] = 901
    assert_right(machine, backend, 1, 3)
    machine.cuda.fail.clear()
    for seed, rows in enumerate([2, 3, 4, 4, 3]):
        assert_right(machine, backend, seed, rows)
    assert machine.cuda.launches == 2 and len(machine.cuda.graphs) == 2  # of 2 and 4
    assert [one.runs for one in machine.trt.contexts] == [0, 0, 2, 4, 2], "3 is not tried again"
    (line,) = caplog.messages
    assert "tensorrt-cuda runs without a CUDA graph at batch size 3, " in line
    backend.close()
    assert machine.cuda.resets == 0 and not machine.cuda.memory


def test_rtx_and_static_engines_need_one_context_for_a_batch_in_flight(make_machine, builds):
    for flavour, options in (("tensorrt-rtx", {"max_batch": 4, "dynamic": True}), ("tensorrt", {"max_batch": 3})):
        machine = make_machine(flavour, samples=0, **options)
        backend = open_backend(machine)
        for seed in range(3):
            assert_right(machine, backend, seed)
        assert [one.scratch for one in machine.trt.contexts] == ["its own"] * 2
        backend.close()


def test_rtx_keeps_what_it_has_compiled_for_the_next_start(make_machine, builds, tmp_path, monkeypatch):
    machine = make_machine("tensorrt-rtx")
    monkeypatch.setattr(device, "_DRIVER", tmp_path / "none")
    backend = open_backend(machine)
    assert_right(machine, backend)
    (path,) = (tmp_path / "cache" / "kanoclip" / "engines").glob("*.jit")
    assert path.read_bytes() == b"kernels for the Fake RTX" and "Fake_RTX-cuda-13000" in path.name
    backend.close()
    again = open_backend(machine)
    assert machine.trt.contexts[-1].engine.kernels.content == b"kernels for the Fake RTX"
    again.close()
    path.write_bytes(b"another driver's")
    other = open_backend(machine)
    assert machine.trt.contexts[-1].engine.kernels.content == b""
    assert_right(machine, other)
    assert path.read_bytes() == b"kernels for the Fake RTX"


def test_a_second_start_takes_the_engine_from_the_cache(make_machine, builds):
    machine = make_machine()
    first = open_backend(machine)
    second = open_backend(machine)
    assert len(builds.asked) == 1
    assert first.origin == "built now" and second.origin == "built here before"
    assert_right(machine, second)


@pytest.mark.parametrize(
    ("flavour", "changes", "taken"),
    [
        ("tensorrt-rtx", {}, True),
        ("tensorrt-rtx", {"compute_capabilities": ("8.6", "12.0")}, False),
        ("tensorrt-rtx", {"version": "1.6.0"}, False),
        ("tensorrt-rtx", {"flavour": "tensorrt"}, False),
        ("tensorrt-rtx", {"platform": "win32-x86_64"}, False),
        ("tensorrt", {}, True),
        ("tensorrt", {"device": "Another RTX"}, False),
        ("tensorrt", {"device": "Another RTX", "compatibility": "same-compute-capability"}, True),
        ("tensorrt", {"compute_capabilities": ("8.6",), "compatibility": "same-compute-capability"}, False),
        ("tensorrt", {"device": "A100", "compute_capabilities": ("8.0",), "compatibility": "ampere-plus"}, True),
        ("tensorrt", {"cuda_major": 12, "compatibility": "ampere-plus"}, False),
    ],
)
def test_the_bundles_engine_is_taken_only_where_it_belongs(make_machine, builds, with_engines, flavour, changes, taken):
    machine = make_machine(flavour)
    rtx = flavour == "tensorrt-rtx"
    facts = {
        "flavour": flavour,
        "version": machine.flavour.version,
        "compute_capabilities": ("8.9",),
        "platform": platform_name(),
        "device": None if rtx else "Fake RTX",
        "cuda_major": None if rtx else 13,
    }
    machine.bundle = with_engines(machine.bundle, [(EngineInfo(file="engines/a.engine", **(facts | changes)), ENGINE)])
    backend = open_backend(machine)
    assert (backend.origin == "the bundle's engines/a.engine", len(builds.asked)) == (taken, int(not taken))
    assert_right(machine, backend)
    backend.close()
    assert open_backend(machine, rebuild=True).origin == "built now"


@pytest.mark.parametrize("integrated", [False, True])
def test_ampere_plus_is_not_for_a_jetson(make_machine, builds, with_engines, integrated):
    machine = make_machine("tensorrt", integrated=integrated)
    info = EngineInfo(
        "engines/a.engine", "tensorrt", "10.3.0", ("8.0",), platform_name(), "A100", 13, compatibility="ampere-plus"
    )
    machine.bundle = with_engines(machine.bundle, [(info, ENGINE)])
    assert (open_backend(machine).origin == "built now") is integrated


def test_tensorrt_may_list_tensors_in_an_order_of_its_own(make_machine, builds, with_engines):
    machine = make_machine(classes=("bolt", "nut"), max_batch=2)
    info = EngineInfo("engines/a.engine", "tensorrt-rtx", "1.7.1", ("8.9",), platform_name())
    machine.bundle = with_engines(machine.bundle, [(info, b'{"reversed": true}')])
    assert_right(machine, open_backend(machine))


def test_a_stripped_engine_gets_its_weights_from_the_graph(make_machine, builds, with_engines):
    machine = make_machine("tensorrt")
    info = EngineInfo(
        "engines/a.engine", "tensorrt", "10.3.0", ("8.9",), platform_name(), "Fake RTX", 13, stripped=True
    )
    machine.bundle = with_engines(machine.bundle, [(info, ENGINE)])
    open_backend(machine)
    assert machine.trt.refitted == [str(machine.bundle.model_path)]


def test_wrong_attention_on_this_gpu_is_found_and_computed_in_float32(make_machine, builds, caplog):
    machine = make_machine()
    builds.drift[0] = lambda chosen: 0.0 if {2, 5} <= chosen else 0.1
    backend = open_backend(machine)
    assert backend.origin == "built now, attention blocks 2, 5 in float32"
    assert "drifts on this GPU" in caplog.text and "blocks 2, 5 in float32" in caplog.text
    assert_right(machine, backend)
    count = len(builds.asked)
    assert count < 20
    assert open_backend(machine).origin == "built here before, attention blocks 2, 5 in float32"
    assert len(builds.asked) == count


def test_wrong_answers_that_attention_does_not_explain_are_refused(make_machine, builds):
    machine = make_machine()
    builds.drift[0] = lambda chosen: 0.1
    with pytest.raises(BackendError, match=r"wrong answers on this GPU .*--fp32"):
        open_backend(machine)
    assert not machine.cuda.memory, "the GPU's memory is freed after an error"
    builds.drift[0] = lambda chosen: float("nan")
    with pytest.raises(BackendError, match="wrong answers on this GPU"):
        open_backend(machine)


def test_without_images_nothing_is_compared_and_it_says_so(make_machine, builds, caplog):
    machine = make_machine(samples=0)
    builds.drift[0] = lambda chosen: 0.1
    caplog.set_level(logging.WARNING)
    open_backend(machine)
    assert "were not compared" in caplog.text and len(builds.asked) == 1


def test_an_engine_that_cannot_be_kept_runs_and_says_so(make_machine, builds, caplog, tmp_path, monkeypatch):
    machine = make_machine()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_right(machine, open_backend(machine))
    assert "built at every start" in caplog.text


@pytest.mark.parametrize(
    ("engine", "words"),
    [(b"not an engine", "cannot load the engine"), (b'{"dtype": "HALF"}', "not what the manifest says")],
)
def test_engines_that_do_not_load_or_are_another_graphs(make_machine, builds, with_engines, engine, words):
    machine = make_machine()
    info = EngineInfo("engines/a.engine", "tensorrt-rtx", "1.7.1", ("8.9",), platform_name())
    machine.bundle = with_engines(machine.bundle, [(info, engine)])
    with pytest.raises(BackendError, match=f"{words}.*again"):
        open_backend(machine)
    assert not machine.cuda.memory


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("call", ["cudaStreamQuery", "cudaMemcpyAsync", "cudaSetDevice", "execute"])
def test_a_lost_gpu_is_a_clear_error_and_leaves_a_new_start_possible(make_machine, builds, flavour, call):
    machine = make_machine(flavour)
    backend = open_backend(machine)
    if call == "execute":
        machine.trt.fails = True
    else:
        machine.cuda.fail[call] = 719
    with pytest.raises(DeviceLostError, match=r"the GPU failed in .*(LaunchFailure|no reason).*dmesg") as caught:
        backend.run(frames(machine), None)
    assert "\n" not in str(caught.value)
    backend.close()
    assert machine.cuda.resets == 1
    machine.trt.fails = False
    assert_right(machine, open_backend(machine))


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_a_run_is_timed_by_the_gpus_own_clock(make_machine, builds, flavour):
    machine = make_machine(flavour)
    backend = open_backend(machine)
    assert_right(machine, backend)
    found = backend.time(frames(machine), None, graph=False)
    down = (32 * 32 + 1) * 4 / 1024
    assert (found.upload, found.compute, found.download) == (3.0, 50.0, pytest.approx(down))
    assert found.total == pytest.approx(53 + down) and found.enqueue > 0
    assert backend.recorded == ((1,) if flavour == "tensorrt" else ())
    if backend.recorded:
        whole = backend.time(frames(machine), None, graph=True)
        assert whole.total == found.total and whole.upload is whole.compute is whole.download is None
    else:
        with pytest.raises(BackendError, match="no CUDA graph"):
            backend.time(frames(machine), None, graph=True)
    assert set(machine.cuda.events.values()) == {"gone"} and backend.device_info.pci == "0000:65:00.0"
    assert_right(machine, backend, 3)
    backend.close()
    assert not machine.cuda.memory


def test_waiting_learns_how_long_a_run_takes(monkeypatch):
    """It sleeps until shortly before the end and asks then: naps all the time came back up to a nap late, and more."""
    now, slept, asked = [0.0], [], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(device, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    wait = device.Wait()
    for _ in range(3):
        end = now[0] + 0.010
        slept.clear()
        asked.clear()

        def done(end=end):
            asked.append(now[0])
            now[0] += 1e-6
            return now[0] >= end

        assert wait.until(done)
        late = now[0] - end
    assert late < 2e-6 and slept == [pytest.approx(0.010 - device._SPIN / 2, abs=1e-4)]
    assert len(asked) < 1000, "not a spin of the whole run"
    monkeypatch.setattr(device, "PATIENCE", 0.05)
    end = math.inf
    assert not wait.until(lambda: done(end))


def test_a_gpu_lost_while_a_graph_is_replayed(make_machine, builds):
    machine = make_machine("tensorrt")
    backend = open_backend(machine)
    assert_right(machine, backend)
    machine.cuda.fail["cudaGraphLaunch"] = 719
    with pytest.raises(DeviceLostError):
        backend.run(frames(machine), None)


def test_a_gpu_that_does_not_answer_is_no_endless_wait(make_machine, builds, monkeypatch):
    machine = make_machine()
    backend = open_backend(machine)
    monkeypatch.setattr(device, "PATIENCE", 0.05)
    machine.cuda.asked_before_done = 10**9
    with pytest.raises(BackendError, match="has not answered") as caught:
        backend.run(frames(machine), None)
    assert not isinstance(caught.value, DeviceLostError), "a new backend would only wait again"
    held = len(machine.cuda.memory)
    backend.close()
    assert len(machine.cuda.memory) == held > 0 and machine.cuda.resets == 0, "freeing would wait for ever"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("cudaGetDeviceCount", "look for GPUs"),
        ("cudaMalloc", "bytes of GPU memory"),
        ("cudaHostAlloc", "bytes of host memory"),
    ],
)
def test_a_gpu_that_cannot_be_had_names_what_is_missing(make_machine, builds, with_engines, call, words):
    machine = make_machine()
    info = EngineInfo("engines/a.engine", "tensorrt-rtx", "1.7.1", ("8.9",), platform_name())
    machine.bundle = with_engines(machine.bundle, [(info, ENGINE)])
    machine.cuda.fail[call] = 2
    with pytest.raises(BackendError, match=f"{words}.*MemoryAllocation"):
        open_backend(machine)
    machine.cuda.fail.clear()
    assert not machine.cuda.memory
    with pytest.raises(BackendError, match="no GPU 3, only 1"):
        TensorRtBackend(machine.bundle, "tensorrt-rtx", "cuda:3", silent)


def test_fused_attention_is_counted_by_the_names_of_layers(make_machine, builds, with_engines):
    machine = make_machine()
    info = EngineInfo("engines/a.engine", "tensorrt-rtx", "1.7.1", ("8.9",), platform_name())
    machine.bundle = with_engines(machine.bundle, [(info, b'{"fused": 21}')])
    backend = open_backend(machine)
    assert backend.fused_attention() == 22, "layers are objects or, without details, plain names"
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.fused_attention()


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        ("560.35.03", r"the driver 560.35.03 is older than 580, .*CUDA 13.*gpu-cu12\].*update the driver"),
        ("470.1", r"the driver 470.1 is older than 580, which CUDA 13 needs: update the driver"),
        (None, "there is no NVIDIA driver, or one older than 580.*: update the driver"),
    ],
)
def test_a_driver_that_is_too_old_names_the_extra_that_fits(make_machine, monkeypatch, tmp_path, driver, words):
    machine = make_machine()
    machine.cuda.fail["cudaGetDeviceCount"] = 35
    if driver is not None:
        (tmp_path / "version").write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Fri\n")
    monkeypatch.setattr(device, "_DRIVER", tmp_path / "version")
    with pytest.raises(BackendError, match=words):
        open_device(0)


def test_a_binding_that_raises_without_a_driver_lets_auto_go_on(make_machine, with_engines, monkeypatch):
    """cuda-python 12.6 raises a RuntimeError of its own where it finds no libcuda."""
    machine = make_machine()
    info = EngineInfo("engines/a.engine", "tensorrt-rtx", "1.7.1", ("8.9",), platform_name())
    bundle = with_engines(machine.bundle, [(info, ENGINE)])

    def no_libcuda():
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(machine.cuda, "cudaGetDeviceCount", no_libcuda)
    with pytest.raises(BackendError, match=r"Failed to dlopen libcuda.so.1: install NVIDIA's driver"):
        open_device(0)
    assert create_backend(bundle, "auto").name.endswith("-cpu")


@pytest.mark.parametrize(("cuda", "taken"), [(12, True), (13, False), (None, False)])
def test_an_engine_is_tied_to_the_cuda_of_tensorrt_and_not_of_the_binding(
    make_machine, builds, with_engines, cuda, taken
):
    machine = make_machine("tensorrt")
    machine.flavour = replace(machine.flavour, cuda_major=cuda)  # the fake binding's is 13
    info = EngineInfo("engines/a.engine", "tensorrt", "10.3.0", ("8.9",), platform_name(), "Fake RTX", 12)
    machine.bundle = with_engines(machine.bundle, [(info, ENGINE)])
    assert (open_backend(machine).origin == "the bundle's engines/a.engine") is taken


def test_the_real_binding_says_that_there_is_no_driver():
    cudart = pytest.importorskip("cuda.bindings.runtime")
    if int(cudart.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=r"CUDA cannot look for GPUs: .*driver"):
        open_device(0)


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"classes": ("bolt", "nut"), "max_batch": 3}, {"max_batch": 4, "dynamic": True}], ids=str
)
def test_descriptors_are_copied_only_where_they_are_wanted(
    make_machine, builds, toy_descriptors, flavour, integrated, options
):
    machine = make_machine(flavour, integrated=integrated, grid=(4, 8), **options)
    backend, most = open_backend(machine), machine.bundle.manifest.max_batch
    kept = []
    for seed, rows in enumerate([1, 4, 2, 4] if options.get("dynamic") else [most] * 4):
        machine.cuda.downloads.clear()
        assert_right(machine, backend, seed, rows)
        answers = [] if integrated else [rows * 32 * 32 * 4, rows * 4]
        assert machine.cuda.downloads == answers
        machine.cuda.downloads.clear()
        given = frames(machine, seed + 7, rows)
        kept.append((backend.describe(given), toy_descriptors(given, (4, 8))))
        assert machine.cuda.downloads == ([] if integrated else [*answers, rows * 32 * 3 * 4])
    for found, wanted in kept:
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (machine.cuda.launches > 0) is (flavour == "tensorrt")
    backend.close()
    assert machine.cuda.memory == {}
    with pytest.raises(BackendError, match="is closed"):
        backend.describe(frames(machine))


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("options", [{"max_batch": 3}, {"max_batch": 4, "dynamic": True}], ids=str)
def test_a_memory_is_uploaded_once_and_padded(
    make_machine, builds, make_memory, toy_answers, flavour, integrated, options
):
    machine = make_machine(flavour, integrated=integrated, grid=(4, 8), memory_rows=16, samples=0, **options)
    backend, rows = open_backend(machine), options["max_batch"]
    given = frames(machine, 1, rows)
    plain, described = backend.run(given, None), backend.describe(given)
    first, second = make_memory(5, 1), make_memory(16, 2)
    for memory in (first, first, second, None, first):
        machine.cuda.uploads.clear()
        found = backend.run(given, None, memory)
        for part, wanted in zip(found, plain if memory is None else toy_answers(given, described, memory), strict=True):
            np.testing.assert_allclose(part, wanted, atol=1e-5)
        frame = [] if integrated else [given.nbytes]
        assert machine.cuda.uploads[-1:] == frame
        backend.run(given, None, memory)
        assert machine.cuda.uploads[-2:] == 2 * frame  # nothing between the two but the frames
    assert (machine.cuda.launches > 0) is (flavour == "tensorrt")
    backend.close()
    assert machine.cuda.memory == {}


def test_an_engine_of_a_bundle_without_descriptors(make_machine, builds):
    machine = make_machine()
    backend = open_backend(machine)
    with pytest.raises(BackendError, match=r"has no descriptor output, .*: export it again"):
        backend.describe(frames(machine))
    backend.close()


def test_a_gpu_lost_in_descriptors(make_machine, builds):
    machine = make_machine(grid=(4, 4))
    backend = open_backend(machine)
    machine.cuda.fail["cudaStreamQuery"] = 719
    with pytest.raises(DeviceLostError):
        backend.describe(frames(machine))
    machine.cuda.fail.clear()
    backend.close()
