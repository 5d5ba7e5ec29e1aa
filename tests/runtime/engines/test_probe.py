"""A probe: an engine that would end this process ends another one, and one line says how."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import kanoclip.runtime.bundle.shipped
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import openvino, probe, probed
from kanoclip.runtime.engines.probe import Probe, command_for
from kanoclip.runtime.engines.probed import LOADS, main
from kanoclip.runtime.errors import BackendError

pytest.importorskip("openvino")
CAN_BF16 = openvino.has_bf16()
SHIPPED = Path(kanoclip.runtime.bundle.shipped.__file__).parent / "nano.kanoclip"


@pytest.fixture
def bundle(make_toy_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Bundle.open(make_toy_bundle(tmp_path / "toy.kanoclip", samples=2))


def python(script):
    return Probe([sys.executable, "-c", script])


def reason(started):
    with pytest.raises(BackendError) as caught:
        started.wait()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGABRT"])
def test_a_death_is_named(name):
    assert reason(python(f"import os, signal; os.kill(os.getpid(), signal.{name})")).endswith(f"died of {name}")


def test_its_last_line_is_the_reason():
    started = python("import sys; print('a warning', file=sys.stderr); sys.exit('openvino failed: no memory')")
    assert reason(started) == "openvino failed: no memory"
    assert reason(python("import os; os._exit(3)")).endswith("exit code 3")


def test_success_says_nothing_however_much_was_printed():
    started = python("print('x' * 300_000)")
    started.wait()
    started.close()


def test_a_probe_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.2)
    started = python("import time; time.sleep(60)")
    assert "did not end within" in reason(started)
    assert started._process.poll() is not None


def test_a_probe_that_cannot_start():
    started = Probe(["/no/such/program"])
    assert "no process can be started" in reason(started)
    started.close()


def test_a_real_engine_in_a_real_process(bundle, tmp_path, monkeypatch):
    """Nothing in the working folder gets in its way."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "kanoclip.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path / "here")
    Probe(command_for(bundle, "openvino", "cpu", 1, 2)).wait()
    assert list((tmp_path / "cache").rglob("*.blob")), "it has compiled nothing"


def test_a_real_engine_that_refuses(bundle):
    (bundle.root / "model.onnx").write_bytes(b"")
    assert str(bundle.root) in reason(Probe(command_for(bundle, "openvino", "cpu", None, 1)))


@pytest.mark.skipif(CAN_BF16, reason="this processor has bfloat16")
def test_bf16_without_the_processor_for_it(bundle):
    assert "no bfloat16" in reason(Probe(command_for(bundle, "openvino-bf16", "cpu", None, 1)))


@pytest.mark.skipif(not CAN_BF16, reason="this processor has no bfloat16")
def test_bf16_on_the_processor_for_it(bundle):
    Probe(command_for(Bundle.open(SHIPPED), "openvino-bf16", "cpu", None, 1)).wait()


class Engine:
    name, workers = "openvino-bf16-cpu", 1

    def __init__(self, value):
        self.value, self.closed = value, False

    def run(self, frames, class_index, memory=None):
        return np.zeros(frames.shape[:3], np.float32), np.full(len(frames), self.value, np.float32)

    def close(self):
        self.closed = True


@pytest.mark.parametrize("values", [(0.5, 0.5), (np.nan, 0.5), (0.5, np.nan), (0.5, np.inf)])
def test_every_load_must_give_numbers(bundle, monkeypatch, values):
    engines, asked = [Engine(value) for value in values], []
    assert len(engines) == LOADS

    def create(bundle, name, device, threads, workers):
        asked.append((name, device, threads, workers))
        return engines[len(asked) - 1]

    monkeypatch.setattr(probed, "create_backend", create)
    with pytest.raises(SystemExit) as caught:
        main([str(bundle.root), "openvino-bf16", "cpu", "0", "2"])
    good = bool(np.isfinite(values).all())
    assert caught.value.code == (0 if good else "openvino-bf16-cpu gives NaN or infinity")
    assert set(asked) == {("openvino-bf16", "cpu", None, 2)}
    assert all(engine.closed for engine in engines[: len(asked)]) and len(asked) == (1 if np.isnan(values[0]) else 2)
