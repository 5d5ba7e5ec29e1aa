from __future__ import annotations

import numpy as np
import pytest

from kanoclip.benchmarks.bench.gemm import CHAIN, SIDE, gemm_model
from kanoclip.benchmarks.bench.gemm.write import PRECISIONS, gemm_graph
from kanoclip.benchmarks.bench.machine.peak import gemm_ways, measure_copy, measure_gemm, write_gemm_bundle
from kanoclip.export.work import gemm_flops
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.errors import KanoclipError


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_files_are_what_the_writer_writes(precision):
    from kanoclip.benchmarks.bench.gemm import SENTINEL

    assert gemm_model(precision, SENTINEL) == gemm_graph(precision).SerializeToString(deterministic=True)


def test_the_graph_multiplies_as_often_as_is_counted(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(gemm_model("fp32", 256))
    assert gemm_flops(path)["MatMul"] == CHAIN * 2 * 256**3


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_engines_run_it_and_the_products_keep_their_size(tmp_path, engine, precision):
    """N(0, 1) entries stay so (int8 cuts some off): the largest is then 4 to 7, as the sigmoid shows."""
    bundle = write_gemm_bundle(tmp_path / "gemm.kanoclip", engine, 1024, precision)
    backend = create_backend(bundle, engine, "cpu")
    try:
        frames = np.full((1, SIDE, SIDE, 3), 100, np.uint8)
        (maps, scores), (_, brighter) = backend.run(frames, None), backend.run(frames + 100, None)
    finally:
        backend.close()
    assert 0.95 < scores[0] < 0.99999 and (maps == scores[0]).all()
    assert brighter[0] > scores[0], "nothing was computed beforehand"


def test_a_way_that_is_not_there_says_why():
    with pytest.raises(KanoclipError, match="tensorrt does not multiply in fp16 here"):
        measure_gemm("tensorrt", "cuda", "fp16")


def test_ways():
    assert gemm_ways("fp32", "cpu", []) == ["numpy", "torch", "onnxruntime", "openvino"]
    assert gemm_ways("int8", "cpu", []) == ["onnxruntime", "openvino"]
    assert gemm_ways("bf16", "cpu", []) == ["torch", "openvino-bf16"]
    assert gemm_ways("fp16", "cuda", ["tensorrt"]) == ["torch", "tensorrt"]


def test_copying():
    found = measure_copy("cpu")
    assert found.value > 0.2 and found.by.startswith("numpy")
