"""Which engine `auto` takes: the fastest that agrees, measured once, with engines whose speed and drift are known."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kanoclip.runtime.bundle.shipped
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import autoselect as trial
from kanoclip.runtime.engines import create_backend, openvino
from kanoclip.runtime.engines.autoselect import _fastest, choose_backend
from kanoclip.runtime.engines.onnxruntime import backend as onnxruntime
from kanoclip.runtime.engines.probe import Probe
from kanoclip.runtime.errors import BackendError

pytest.importorskip("openvino")
HAS_BF16 = openvino.has_bf16  # the real one
SHIPPED = Path(kanoclip.runtime.bundle.shipped.__file__).parent / "nano.kanoclip"


class Engine:
    """Answers as the toy graph does, later and otherwise by as much as it is told."""

    def __init__(self, name, milliseconds, map_drift, score_drift):
        self.name, self.milliseconds = f"{name}-cpu", milliseconds
        self.map_drift, self.score_drift = map_drift, score_drift
        self.closed, self.batches = False, []

    def run(self, frames, class_index, memory=None):
        assert not self.closed
        time.sleep(self.milliseconds / 1e3)
        self.batches.append(len(frames))
        maps = frames.mean(3, dtype=np.float32) / 255
        return maps + np.float32(self.map_drift), maps.max((1, 2)) + np.float32(self.score_drift)

    def close(self):
        self.closed = True


class Engines:
    """What `create_backend` is to the trial: (milliseconds, map drift, score drift) by name, or an error."""

    def __init__(self, **behaviours):
        self.behaviours = {name.replace("_", "-"): value for name, value in behaviours.items()}
        self.made = []

    def __call__(self, name):
        found = self.behaviours[name]
        if isinstance(found, BaseException):
            raise found
        engine = Engine(name, *found)
        self.made.append(engine)
        return engine

    @property
    def names(self):
        return [engine.name.removesuffix("-cpu") for engine in self.made]


FAST, SLOW, NO_DRIFT = 2, 12, (0, 0)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kanoclip" / "trials"


@pytest.fixture
def bundle(make_toy_bundle, tmp_path, cache):
    return Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", samples=2))


@pytest.fixture(autouse=True)
def a_cpu(monkeypatch, caplog):
    """A processor without bfloat16, no GPU, and short timing."""
    monkeypatch.setattr(openvino, "has_bf16", lambda: False)
    monkeypatch.setattr(onnxruntime, "has_cuda", lambda: False)
    monkeypatch.setattr(trial, "PAUSE_S", 0)
    caplog.set_level(logging.INFO, "kanoclip.runtime")


@pytest.fixture
def bf16_probe(monkeypatch):
    """A processor with bfloat16, where a probe runs the Python that it is told; returns what was probed."""
    probed = []

    def tell(script):
        def command(*arguments):
            probed.append(arguments)
            return [sys.executable, "-c", script]

        monkeypatch.setattr(trial, "command_for", command)
        return probed

    monkeypatch.setattr(openvino, "has_bf16", lambda: True)
    return tell


def choose(bundle, engines, device="auto", threads=1):
    return choose_backend(bundle, device, threads, engines).name.removesuffix("-cpu")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((SLOW, *NO_DRIFT), (FAST, *NO_DRIFT), "openvino"),
        ((FAST, *NO_DRIFT), (SLOW, *NO_DRIFT), "onnxruntime"),
        ((SLOW, *NO_DRIFT), (FAST, 9e-4, 9e-5), "openvino"),
        ((SLOW, *NO_DRIFT), (FAST, 2e-3, 0), "onnxruntime"),
        ((SLOW, *NO_DRIFT), (FAST, 0, 2e-4), "onnxruntime"),
        ((SLOW, *NO_DRIFT), (FAST, np.nan, 0), "onnxruntime"),
        ((SLOW, *NO_DRIFT), (FAST, 0, np.nan), "onnxruntime"),
        ((FAST, 2e-3, 0), (SLOW, *NO_DRIFT), "openvino"),
    ],
)
def test_the_fastest_that_agrees(bundle, caplog, ours, theirs, expected):
    engines = Engines(onnxruntime=ours, openvino=theirs)
    assert choose(bundle, engines) == expected
    closed = {engine.name: engine.closed for engine in engines.made}
    assert closed == {name: name != f"{expected}-cpu" for name in ("onnxruntime-cpu", "openvino-cpu")}
    assert f"{expected}-cpu chosen: " in caplog.messages[-1]
    drifting = {name for name, b in (("onnxruntime", ours), ("openvino", theirs)) if not (b[1] < 1e-3 and b[2] < 1e-4)}
    warned = {r.getMessage().split()[0] for r in caplog.records if r.levelno == logging.WARNING}
    assert warned == drifting


@pytest.mark.parametrize(
    ("bf16", "expected"),
    [
        ((FAST, 9e-2, 4e-2), "openvino-bf16"),
        ((FAST, 0.11, 0), "openvino"),
        ((FAST, 0, 0.06), "openvino"),
        ((FAST, np.nan, 0), "openvino"),
        ((20, *NO_DRIFT), "openvino"),
    ],
)
def test_bfloat16_is_scored_by_its_own_bounds(bundle, bf16_probe, bf16, expected):
    bf16_probe("")
    engines = Engines(onnxruntime=(20, 0, 0), openvino=(10, 0, 0), openvino_bf16=bf16)
    assert choose(bundle, engines) == expected
    assert engines.names == ["onnxruntime", "openvino", "openvino-bf16"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process that probed it died of SIGSEGV"),
        ("import sys; sys.exit('openvino-bf16-cpu gives NaN or infinity')", "openvino-bf16-cpu gives NaN or infinity"),
    ],
    ids=["dies", "NaN"],
)
def test_an_engine_that_fails_its_probe_never_runs_here(bundle, cache, bf16_probe, caplog, script, reason):
    probed = bf16_probe(script)
    engines = Engines(onnxruntime=(20, 0, 0), openvino=(10, 0, 0), openvino_bf16=(FAST, 0, 0))
    assert choose_backend(bundle, "cpu", 3, engines, workers=2).name == "openvino-cpu"
    assert engines.names == ["onnxruntime", "openvino"]
    assert probed == [(bundle, "openvino-bf16", "cpu", 3, 2)]
    assert f"openvino-bf16 is left out: {reason}" in caplog.messages
    (path,) = cache.iterdir()
    assert json.loads(path.read_text())["left_out"] == {"openvino-bf16": reason}
    caplog.clear()
    assert choose_backend(bundle, "cpu", 3, engines, workers=2).name == "openvino-cpu"
    assert len(probed) == 1 and caplog.messages == []


def test_no_probe_outlives_a_trial_that_ends_early(bundle, bf16_probe, monkeypatch):
    started = []

    class Watched(Probe):
        def __init__(self, command):
            super().__init__(command)
            started.append(self._process)

    monkeypatch.setattr(trial, "Probe", Watched)
    bf16_probe("import time; time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        choose(bundle, Engines(onnxruntime=(1, 0, 0), openvino=KeyboardInterrupt()))
    (process,) = started
    assert process.poll() is not None


@pytest.mark.skipif(not HAS_BF16(), reason="this processor has no bfloat16")
def test_real_bfloat16_passes_its_probe_and_agrees(cache, monkeypatch, caplog):
    monkeypatch.setattr(openvino, "has_bf16", HAS_BF16)
    create_backend(Bundle.open(SHIPPED), device="cpu").close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    (path,) = cache.iterdir()
    assert set(json.loads(path.read_text())["milliseconds"]) == {"onnxruntime", "openvino", "openvino-bf16"}


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        ({"a": 10.0, "b": 9.6}, "a"),
        ({"a": 10.0, "b": 9.4}, "b"),
        ({"a": 10.0, "b": 9.4, "c": 9.0}, "b"),
        ({"a": 10.0, "b": 9.4, "c": 8.9}, "c"),
        ({"b": 10.0}, "b"),
    ],
)
def test_a_gain_below_the_noise_is_none(spent, expected):
    assert _fastest(spent) == expected


def test_engines_take_turns_and_the_median_counts(bundle, monkeypatch):
    """One slow run of the fast engine, as when another program wakes up, changes nothing."""
    order = []

    class Jumpy(Engine):
        def run(self, frames, class_index, memory=None):
            order.append(self.name)
            self.milliseconds = 80 if len(order) == 10 else FAST
            return super().run(frames, class_index, memory)

    def create(name):
        return Jumpy(name, FAST, 0, 0) if name == "openvino" else Watched(name, 8, 0, 0)

    class Watched(Engine):
        def run(self, frames, class_index, memory=None):
            order.append(self.name)
            return super().run(frames, class_index, memory)

    assert choose_backend(bundle, "cpu", 1, create).name == "openvino-cpu"
    timed = order[6:]  # three runs each on two images: one to warm up, two that are compared
    assert timed[:4] == ["onnxruntime-cpu", "openvino-cpu"] * 2
    assert timed.count("openvino-cpu") == timed.count("onnxruntime-cpu") == trial.ROUNDS


def test_slow_engines_are_timed_less_often(bundle, monkeypatch):
    monkeypatch.setattr(trial, "BUDGET_S", 0.05)
    engines = Engines(onnxruntime=(30, 0, 0), openvino=(30, 0, 0))
    choose(bundle, engines)
    assert [len(engine.batches) for engine in engines.made] == [3 + trial.LEAST_ROUNDS] * 2


@pytest.mark.parametrize(("dynamic", "size"), [(True, 1), (False, 4)])
def test_a_dynamic_batch_is_timed_as_a_stream_runs_it(make_toy_bundle, tmp_path, cache, dynamic, size):
    bundle = Bundle.open(make_toy_bundle(tmp_path / "b", samples=2, dynamic=dynamic, max_batch=4))
    engines = Engines(onnxruntime=(1, 0, 0), openvino=(1, 0, 0))
    choose(bundle, engines)
    assert engines.made[0].batches == [4, 4] + [size] * trial.ROUNDS


def test_the_second_start_knows(bundle, cache, caplog):
    assert choose(bundle, Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0))) == "openvino"
    assert len(list(cache.iterdir())) == 1
    caplog.clear()
    again = Engines(onnxruntime=(FAST, 0, 0), openvino=(SLOW, 0, 0))
    assert choose(bundle, again) == "openvino"
    assert again.names == ["openvino"] and again.made[0].batches == [] and caplog.messages == []


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(trial, "installed_versions", lambda names: {"onnxruntime": "9", "openvino": "9"}),
        lambda patch: patch.setattr(trial, "cpu_name", lambda: "another one"),
        lambda patch: patch.setattr(trial, "cpu_features", lambda: "others"),
        lambda patch: patch.setattr(trial, "own_cores", lambda: 77),
    ],
    ids=["versions", "name", "features", "cores"],
)
def test_another_machine_or_version_is_another_trial(bundle, monkeypatch, change):
    choose(bundle, Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0)))
    with pytest.MonkeyPatch.context() as patch:
        change(patch)
        assert choose(bundle, Engines(onnxruntime=(FAST, 0, 0), openvino=(SLOW, 0, 0))) == "onnxruntime"
    known = Engines(openvino=(FAST, 0, 0))
    assert choose(bundle, known) == "openvino"
    faster = Engines(onnxruntime=(FAST, 0, 0), openvino=(SLOW, 0, 0))
    assert choose(bundle, faster, threads=2) == choose(bundle, faster, device="cpu") == "onnxruntime"
    assert choose_backend(bundle, "auto", 1, faster, workers=2).name == "onnxruntime-cpu"


def test_another_graph_is_another_trial(bundle, make_toy_bundle, tmp_path):
    choose(bundle, Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0)))
    other = Bundle.open(make_toy_bundle(tmp_path / "other", samples=2, size=16))
    engines = Engines(onnxruntime=(FAST, 0, 0), openvino=(SLOW, 0, 0))
    assert choose(other, engines) == "onnxruntime" and len(engines.made) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"key": 1, "backend": "openvino"}', None],
)
def test_a_damaged_memory_is_just_another_trial(bundle, cache, content):
    choose(bundle, Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0)))
    (path,) = cache.iterdir()
    if content is None:  # the right key and an engine that nobody knows
        content = json.dumps(json.loads(path.read_text()) | {"backend": "../openvino"}).encode()
    path.write_bytes(content)
    engines = Engines(onnxruntime=(FAST, 0, 0), openvino=(SLOW, 0, 0))
    assert choose(bundle, engines) == "onnxruntime" and len(engines.made) == 2
    assert json.loads(path.read_text())["backend"] == "onnxruntime"


def test_a_memory_that_cannot_be_written_is_said_and_breaks_nothing(bundle, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        caplog.clear()
        engines = Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0))
        assert choose(bundle, engines) == "openvino" and len(engines.made) == 2
        assert "cannot be saved" in caplog.messages[-1] and "XDG_CACHE_HOME" in caplog.messages[-1]


def test_an_engine_that_broke_after_its_trial_is_tried_again(bundle, caplog):
    choose(bundle, Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0)))
    engines = Engines(onnxruntime=(SLOW, 0, 0), openvino=BackendError("openvino is broken: install it again"))
    assert choose(bundle, engines) == "onnxruntime"
    assert "openvino is broken: install it again" in caplog.text


def test_an_engine_that_fails_in_a_run_is_left_out_and_closed(bundle, caplog):
    closed = []

    class Failing(Engine):
        def run(self, frames, class_index, memory=None):
            raise BackendError("openvino-cpu failed: out of memory")

        def close(self):
            closed.append(self.name)

    engines = Engines(onnxruntime=(FAST, 0, 0))

    def create(name):
        return Failing(name, 0, 0, 0) if name == "openvino" else engines(name)

    assert choose_backend(bundle, "cpu", 1, create).name == "onnxruntime-cpu"
    assert closed == ["openvino-cpu"]
    assert "openvino is left out: openvino-cpu failed: out of memory" in caplog.messages


def test_where_no_engine_agrees_nothing_is_remembered_and_it_is_said_each_time(bundle, cache, caplog):
    for _ in range(2):
        caplog.clear()
        assert choose(bundle, Engines(onnxruntime=(1, 0.5, 0), openvino=(1, 0.5, 0))) == "onnxruntime"
        assert "no engine gives the bundle's answers" in caplog.messages[-1]
    assert not list(cache.iterdir())


@pytest.mark.parametrize(
    ("present", "expected"),
    [({"onnxruntime"}, "onnxruntime"), ({"openvino"}, "openvino"), (set(), "onnxruntime")],
)
def test_one_engine_needs_no_trial(bundle, cache, monkeypatch, caplog, present, expected):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in present else None)
    engines = Engines(onnxruntime=(1, 0.5, 0), openvino=(1, 0.5, 0))
    assert choose(bundle, engines) == expected
    assert engines.made[0].batches == [] and not cache.exists() and caplog.messages == []


@pytest.mark.parametrize("changes", [{"samples": 0}, {"samples": 1, "parity": None}])
def test_a_bundle_that_cannot_be_scored_runs_on_onnx_runtime(make_toy_bundle, tmp_path, cache, caplog, changes):
    engines = Engines(onnxruntime=(1, 0, 0))
    assert choose(Bundle.open(make_toy_bundle(tmp_path / "b", **changes)), engines) == "onnxruntime"
    assert engines.made[0].batches == [] and not cache.exists() and caplog.messages == []


def test_a_gpu_is_taken_without_a_trial_unless_the_cpu_is_named(bundle, monkeypatch, cache):
    monkeypatch.setattr(onnxruntime, "has_cuda", lambda: True)
    engines = Engines(onnxruntime=(SLOW, 0, 0), openvino=(FAST, 0, 0))
    assert choose(bundle, engines, "auto") == "onnxruntime" and engines.names == ["onnxruntime"]
    assert choose(bundle, engines, "cpu") == "openvino"
    assert choose(bundle, engines, "auto") == "onnxruntime"


def test_broken_engines_are_skipped_with_a_warning(bundle, monkeypatch, caplog):
    """As they are: packages whose import fails."""
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(trial, "is_installed", lambda name: True)
    assert create_backend(bundle, threads=1).name == "onnxruntime-cpu"
    assert "OpenVINO is not installed" in caplog.text
    caplog.clear()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(trial, "is_installed", lambda name: True)
    assert create_backend(bundle, threads=1).name == "openvino-cpu"
    assert "no inference engine" in caplog.text


def test_cuda_never_comes_to_the_trial(bundle, monkeypatch):
    monkeypatch.setattr(trial, "choose_backend", lambda *_: pytest.fail("a trial for a GPU"))
    with pytest.raises(BackendError, match="no cuda provider"):
        create_backend(bundle, "auto", "cuda")


def test_real_engines(bundle, caplog):
    """With one memory, whatever was chosen comes back without a trial."""
    first = create_backend(bundle, threads=1)
    assert first.name in ("onnxruntime-cpu", "openvino-cpu")
    assert [message.split()[0] for message in caplog.messages] == ["choosing", first.name]
    caplog.clear()
    assert create_backend(bundle, threads=1).name == first.name and caplog.messages == []


@pytest.mark.parametrize("quiet", [False, True])
def test_kanoclip_run_tells_it_once(make_toy_bundle, tmp_path, cache, quiet):
    make_toy_bundle(tmp_path / "toy.kanoclip", samples=1)
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "run", "--source"]
    # A single image does not wait for a trial, and makes none for others.
    few = subprocess.run(
        [*command, "toy.kanoclip/samples/0.jpg"], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert few.returncode == 0 and few.stderr == "" and "onnxruntime-cpu" in few.stdout
    command += ["test://?width=64&height=64", "--max-frames", "1", "--no-window"]
    said = []
    for _ in range(2):
        done = subprocess.run(
            [*command, *["--quiet"] * quiet], capture_output=True, text=True, cwd=tmp_path, timeout=60
        )
        assert done.returncode == 0, done.stderr
        said.append([line.split()[1] for line in done.stderr.splitlines()])
    assert said == ([[], []] if quiet else [["the", "chosen:"], []])
