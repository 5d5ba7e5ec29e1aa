from __future__ import annotations

import sys

import pytest

from kanoclip.export.engine import build_rtx_engine, default_targets, parse_compute_capabilities, rtx_targets
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.runtime.errors import ExportError

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has wheels for x86-64 only")


@pytest.fixture(scope="module")
def fp16_onnx(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "model.onnx"
    write_onnx(DeployGraph(tiny.model, ["bolt"], "fp16"), (48, 48), BatchSpec(), 18, path)
    return path


def test_engine_for_three_generations_of_gpu_without_a_gpu(fp16_onnx, tmp_path):
    shares = []
    built = build_rtx_engine(fp16_onnx, tmp_path, ("8.6", "8.9", "12.0"), BatchSpec(), shares.append)
    assert built.path.name == f"tensorrt-rtx-{trt.__version__}-sm86-sm89-sm120.engine"
    assert built.path.stat().st_size > fp16_onnx.stat().st_size / 2
    assert shares and all(0 <= share <= 1 for share in shares) and max(shares) > 0.5


def test_turing_gets_its_own_engine(fp16_onnx, tmp_path):
    assert rtx_targets(["8.9", "7.5", "8.6"], "fp16") == [("7.5",), ("8.9", "8.6")]
    built = build_rtx_engine(fp16_onnx, tmp_path, ("7.5",), BatchSpec(), lambda share: None)
    assert built.compute_capabilities == ("7.5",)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_turing_runs_fp16_only(precision):
    with pytest.raises(ExportError, match=r"7\.5 has no"):
        rtx_targets(["7.5"], precision)


@pytest.mark.parametrize("targets", [["8.6"], ["8.9", "8.0", "12.0"]])
def test_fp8_needs_ada_or_blackwell(targets):
    with pytest.raises(ExportError, match=r"8\.[06] has no fp8 tensor cores.*8\.9.*12\.0"):
        rtx_targets(targets, "fp8")
    assert rtx_targets(default_targets("fp8"), "fp8") == [("8.9", "12.0")]
    assert rtx_targets(default_targets("int8"), "int8") == [("8.6", "8.9", "12.0")]


def test_bf16_and_dynamic_batch_build(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    batch = BatchSpec(4, dynamic=True)
    write_onnx(DeployGraph(tiny.model, ["bolt", "nut"], "bf16"), (48, 48), batch, 18, path)
    assert build_rtx_engine(path, tmp_path, ("8.6",), batch, lambda share: None).path.is_file()


def test_jetson_and_data_centre_are_refused_by_name():
    with pytest.raises(ExportError, match=r"8\.7.*full TensorRT"):
        rtx_targets(["8.7"], "fp16")


def test_graph_that_does_not_parse_is_one_line(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(ExportError, match=r"cannot parse model\.onnx") as caught:
        build_rtx_engine(tmp_path / "model.onnx", tmp_path, ("8.6",), BatchSpec(), lambda share: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "86", "8.6,", "8,6", "sm_86"])
def test_badly_written_capabilities(text):
    with pytest.raises(ExportError, match=r"MAJOR\.MINOR"):
        parse_compute_capabilities(text)


def test_capabilities_are_read_in_order_without_repeats():
    assert parse_compute_capabilities("8.9, 8.6,8.9") == ("8.9", "8.6")


def test_missing_tensorrt_rtx_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(ExportError, match="pip install tensorrt-rtx"):
        rtx_targets(["8.6"], "fp16")
