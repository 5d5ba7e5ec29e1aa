from __future__ import annotations

import pytest

from kanoclip.benchmarks.bench.machine.peak import Peak
from kanoclip.benchmarks.bench.machine.roofline import floor, work_of
from kanoclip.benchmarks.bench.runners.runners import precisions
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import GraphWork

WORK = GraphWork(gemm_flops=2 * 10**9, weight_bytes=4 * 10**6, frame_bytes=10**6)


def test_the_longer_of_both_is_the_floor():
    fast, slow = Peak(1000.0, "x"), Peak(10.0, "y")
    found = floor(WORK, 1, {"fp32": slow}, Peak(50.0, "numpy"), ["fp32"])
    assert (found.milliseconds, found.bound_by, found.by) == (200.0, "products", "y")
    found = floor(WORK, 4, {"fp32": fast}, Peak(0.5, "numpy"), ["fp32"])
    assert found.bound_by == "memory" and found.milliseconds == pytest.approx((4 + 4) / 0.5)
    assert floor(WORK, 2, {"fp32": fast}, None, ["fp32"]).milliseconds == pytest.approx(4.0)


def test_the_fastest_precision_counts_and_none_is_no_figure():
    peaks = {"int8": Peak(30.0, "int8"), "fp32": Peak(40.0, "fp32")}
    assert floor(WORK, 1, peaks, None, ["int8", "fp32"]).by == "fp32"
    assert floor(WORK, 1, peaks, None, ["fp16"]) is None


@pytest.mark.parametrize(
    ("name", "precision", "found"),
    [
        ("torch-cpu", "int8", ("fp32",)),
        ("torch-compile-cuda", "fp32", ("fp16",)),
        ("onnxruntime-cpu", "fp16", ("fp32",)),
        ("openvino-cpu", "int8", ("int8", "fp32")),
        ("openvino-bf16-cpu", "fp32", ("bf16",)),
        ("openvino-bf16-cpu", "int8-cpu", ("int8", "bf16")),
        ("tensorrt-rtx-cuda", "fp8", ("fp16",)),
        ("onnxruntime-cuda", "fp32", ("fp32",)),
    ],
)
def test_what_products_a_runner_computes_in(name, precision, found):
    assert precisions(name, precision) == found


def test_a_bundle_of_before_is_counted_here_or_says_what_is_missing(toy_bundle, monkeypatch):
    bundle = Bundle.open(toy_bundle)
    assert bundle.manifest.work is None
    work, reason = work_of(bundle)
    assert work.frame_bytes == 32 * 32 * (3 + 4) + 4 and reason == ""
    monkeypatch.setattr("kanoclip.benchmarks.bench.machine.roofline.is_installed", lambda name: False)
    assert work_of(bundle) == (
        None,
        "this bundle was exported without a count of its work: pip install onnx, or export it again",
    )
