from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kanoclip.export import engine
from kanoclip.export.engine import (
    EngineRequest,
    default_targets,
    parse_compute_capabilities,
    plan_engines,
    rtx_targets,
    write_engine,
)
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions
from kanoclip.runtime.engines.tensorrt.device import DeviceInfo, platform_name
from kanoclip.runtime.engines.tensorrt.flavour import Flavour, load_flavour
from kanoclip.runtime.errors import BackendError, ExportError

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has wheels for x86-64 only")


def request(*targets):
    return EngineRequest("tensorrt-rtx", BuildOptions(targets=targets))


def split(targets, precision):
    return rtx_targets(load_flavour("tensorrt-rtx"), targets, precision)


@pytest.fixture
def fp16_onnx(plain):
    return plain("fp16")


def test_engine_for_three_generations_of_gpu_without_a_gpu(fp16_onnx, tmp_path):
    told = []
    built = write_engine(fp16_onnx, tmp_path, request("8.6", "8.9", "12.0"), lambda *step: told.append(step))
    assert built.file == f"engines/tensorrt-rtx-{trt.__version__}-sm86-sm89-sm120.engine"
    assert (built.version, built.platform, built.device) == (trt.__version__, platform_name(), None)
    assert (tmp_path / built.file).stat().st_size > fp16_onnx.stat().st_size / 2
    assert all("8.6, 8.9, 12.0" in words for words, _ in told)
    assert all(0 <= share <= 1 for _, share in told) and max(share for _, share in told) > 0.5


def test_turing_gets_its_own_engine(fp16_onnx, tmp_path):
    planned = plan_engines(request("8.9", "7.5", "8.6"), "fp16")
    assert [one.options.targets for one in planned] == [("7.5",), ("8.9", "8.6")]
    assert write_engine(fp16_onnx, tmp_path, planned[0], lambda *step: None).compute_capabilities == ("7.5",)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_turing_runs_fp16_only(precision):
    with pytest.raises(ExportError, match=r"7\.5 has no"):
        split(["7.5"], precision)


@pytest.mark.parametrize("targets", [["8.6"], ["8.9", "8.0", "12.0"]])
def test_fp8_needs_ada_or_blackwell(targets):
    with pytest.raises(ExportError, match=r"8\.[06] has no fp8 tensor cores.*8\.9.*12\.0"):
        split(targets, "fp8")
    assert split(default_targets("fp8"), "fp8") == [("8.9", "12.0")]
    assert split(default_targets("int8"), "int8") == [("8.6", "8.9", "12.0")]


@pytest.mark.nightly
def test_bf16_and_dynamic_batch_build(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    write_onnx(DeployGraph(tiny.model, ["bolt", "nut"], "bf16"), (48, 48), BatchSpec(4, dynamic=True), 18, path)
    asked = request("8.6")
    asked = replace(asked, options=replace(asked.options, max_batch=4))
    assert (tmp_path / write_engine(path, tmp_path, asked, lambda *step: None).file).is_file()


def test_jetson_and_data_centre_are_refused_by_name():
    with pytest.raises(ExportError, match=r"8\.7.*full TensorRT"):
        split(["8.7"], "fp16")


@pytest.mark.parametrize("text", ["", "86", "8.6,", "8,6", "sm_86"])
def test_badly_written_capabilities(text):
    with pytest.raises(ExportError, match=r"MAJOR\.MINOR"):
        parse_compute_capabilities(text)


def test_capabilities_are_read_in_order_without_repeats():
    assert parse_compute_capabilities("8.9, 8.6,8.9") == ("8.9", "8.6")


def test_missing_tensorrt_rtx_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendError, match="pip install tensorrt-rtx"):
        plan_engines(request("8.6"), "fp16")


@pytest.mark.parametrize("integrated", [False, True])
def test_ampere_plus_is_refused_on_a_jetson_before_any_work(monkeypatch, integrated):
    gpu = SimpleNamespace(info=DeviceInfo(0, "Orin", "8.7", 12, "540", integrated), close=lambda: None)
    monkeypatch.setattr(engine, "open_device", lambda index: gpu)
    monkeypatch.setattr(engine, "load_flavour", lambda name: Flavour(name, None, "10.3.0"))
    wanted = EngineRequest("tensorrt", BuildOptions(compatibility="ampere-plus"))
    if integrated:
        with pytest.raises(ExportError, match="not for a Jetson"):
            plan_engines(wanted, "fp16")
    else:
        assert plan_engines(wanted, "fp32")[0].options.tf32 is False
        assert plan_engines(wanted, "fp16")[0].options.tf32 is True


def test_full_tensorrt_that_is_not_installed_names_jetpack(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="JetPack"):
        plan_engines(EngineRequest("tensorrt", BuildOptions()), "fp16")
