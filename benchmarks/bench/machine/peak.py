"""What this machine can do: the speed of large matrix products and of copying, by the fastest way that is installed.

Each way of multiplying (numpy's BLAS, torch, each engine) is measured in a process of its own, so that none of them
takes memory or threads from what is measured beside it, and so that one that crashes ends nothing else:

    python -m kanoclip.benchmarks.bench.machine.peak openvino cpu fp32
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kanoclip.benchmarks.bench.gemm import CHAIN, OPSET, SIDE, gemm_model
from kanoclip.runtime.bundle.bundle import Bundle, sha256_of
from kanoclip.runtime.bundle.manifest.parts import (
    FLAVOURS,
    INTERPOLATION,
    RESIZE_RULE,
    FileInfo,
    ModelInfo,
    Preprocessing,
    Thresholds,
)
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, MODEL_FILE, SCHEMA, Manifest
from kanoclip.runtime.bundle.manifest.signature import graph_signature
from kanoclip.runtime.engines import CPU_ONLY, create_backend
from kanoclip.runtime.errors import BackendError, KanoclipError, one_line
from kanoclip.runtime.system.hardware import own_cores
from kanoclip.runtime.system.installed import is_installed

SIZES = (1024, 2048, 4096, 8192)
LARGER_BELOW_S = 0.5
"""Products of the next size are tried as long as a run is shorter: what is large enough differs by machine."""
BUDGET_S, LEAST_RUNS = 1.0, 3
COPIED = {"cpu": 256 << 20, "cuda": 512 << 20}
CHILD_S = 600.0
"""An engine's build for a GPU may take minutes."""


@dataclass(frozen=True)
class Peak:
    """The best of several runs: a peak is what the machine reaches when nothing disturbs it.

    Attributes:
        value: GFLOP/s, multiply and add counted as two; or GB/s, bytes read and written.
        by: What reached it, in words.
    """

    value: float
    by: str


def gemm_ways(precision: str, device: str, engines: Iterable[str]) -> list[str]:
    """What can multiply in a precision on a device, as `measure_gemm` takes it.

    Args:
        precision: A graph's precision, as in the manifest.
        device: `cpu`, `cuda` or `cuda:N`.
        engines: Backends that are being compared on a GPU; on the CPU all that are installed are taken.
    """
    torch = ["torch"] if is_installed("torch") and precision in ("fp32", "fp16", "bf16") else []
    if device != "cpu":
        return [*torch, *engines]
    runtimes = [name for name in ("onnxruntime", "openvino") if is_installed(name)]
    if precision == "fp32":
        return ["numpy", *torch, *runtimes]
    if precision == "bf16":
        return [*torch, *(["openvino-bf16"] if "openvino" in runtimes else [])]
    return runtimes


def measure_gemm(way: str, device: str, precision: str) -> Peak:
    """Measures one way in a process of its own.

    Args:
        way: `numpy`, `torch` or a backend's name.
        device: `cpu`, `cuda` or `cuda:N`.
        precision: Of the products: `fp32`, `fp16`, `bf16` or `int8`.

    Raises:
        KanoclipError: It does not run here.
    """
    with tempfile.TemporaryDirectory(prefix="kanoclip-peak-") as folder:
        command = [sys.executable, "-m", __name__, way, device, precision]
        # Engines keep what they build in the user's cache, where these graphs of some 100 MB have no business.
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S, env=environment)
            reported = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            raise KanoclipError(f"{way} cannot be measured ({one_line(error)})") from error
    if reported is None:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise KanoclipError(f"{way} does not multiply in {precision} here ({one_line(reason[0])})")
    return Peak(float(reported["gflops"]), f"{way}, {reported['size']} x {reported['size']}")


def measure_copy(device: str) -> Peak:
    """Measures copying within the CPU's memory or a GPU's.

    Raises:
        KanoclipError: There is nothing installed that could copy on that GPU.
    """
    if device == "cpu":
        return _copy_on_cpu()
    if is_installed("torch"):
        import torch

        source = torch.empty(COPIED["cuda"], dtype=torch.uint8, device=device)
        target = torch.empty_like(source)

        def copy() -> None:
            target.copy_(source)
            torch.cuda.synchronize(device)

        return Peak(2 * source.numel() / _fastest(copy) / 1e9, "torch")
    return _copy_by_cuda_python(device)


def _copy_on_cpu() -> Peak:
    """One thread seldom fills the memory's channels, so all numbers of threads up to the cores are tried."""
    source = np.ones(COPIED["cpu"], np.uint8)
    target = np.zeros_like(source)
    best = Peak(0.0, "")
    threads, cores = 1, own_cores()
    while True:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
            spent = _fastest(lambda pool=pool, parts=parts: list(pool.map(lambda part: np.copyto(*part), parts)))
        rate = 2 * source.nbytes / spent / 1e9
        if rate > best.value:
            best = Peak(rate, f"numpy, {threads} thread{'s' if threads > 1 else ''}")
        if threads == cores:
            return best
        threads = min(threads * 2, cores)


def _copy_by_cuda_python(device: str) -> Peak:
    try:
        import cuda.bindings.runtime as cudart
    except ImportError as error:
        raise KanoclipError("copying on the GPU cannot be measured: pip install cuda-python") from error
    from kanoclip.runtime.engines.base import gpu_index
    from kanoclip.runtime.engines.tensorrt.open_device import open_device

    gpu = open_device(gpu_index(device))
    try:
        gpu.enter()
        stream, source, target = gpu.make_stream(), gpu.allocate(COPIED["cuda"]), gpu.allocate(COPIED["cuda"])

        def copy() -> None:
            kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            cudart.cudaMemcpyAsync(target, source, COPIED["cuda"], kind, stream.handle)
            stream.synchronize()

        rate = 2 * COPIED["cuda"] / _fastest(copy) / 1e9
        gpu.leave()
        return Peak(rate, "cuda-python")
    finally:
        gpu.close()


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest run; the first, which touches the memory for the first time, is among them."""
    best, number, until = float("inf"), 0, time.perf_counter() + BUDGET_S
    while number < LEAST_RUNS or time.perf_counter() < until:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
        number += 1
    return best


def _multiply(way: str, device: str, precision: str) -> tuple[float, int]:
    """GFLOP/s, and the size of the matrices that gave it."""
    best = 0.0, 0
    for size in SIZES:
        if way == "numpy":
            spent, products = _numpy(size), 1
        elif way == "torch":
            spent, products = _torch(size, device, precision), 1
        else:
            spent, products = _engine(way, size, device, precision), CHAIN
        best = max(best, (products * 2 * size**3 / spent / 1e9, size))
        if spent * CHAIN / products > LARGER_BELOW_S:
            break
    return best


def _numpy(size: int) -> float:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    out = np.empty_like(left)
    return _fastest(lambda: np.matmul(left, right, out=out))


def _torch(size: int, device: str, precision: str) -> float:
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=out)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return _fastest(multiply)


def _engine(way: str, size: int, device: str, precision: str) -> float:
    with tempfile.TemporaryDirectory(prefix="kanoclip-gemm-") as folder:
        bundle = write_gemm_bundle(Path(folder) / "gemm.kanoclip", way, size, precision)
        backend = create_backend(bundle, way, "auto" if way in CPU_ONLY else device)
        try:
            frames = np.full((1, SIDE, SIDE, 3), 100, np.uint8)
            backend.run(frames, None)
            return _fastest(lambda: backend.run(frames, None))
        finally:
            backend.close()


def write_gemm_bundle(folder: Path, way: str, size: int, precision: str) -> Bundle:
    """A bundle of the graph of large products, which a backend runs as it runs any other.

    Args:
        folder: To be made.
        way: The backend that it is for.
        size: Of the matrices.
        precision: `fp32`, `fp16`, `bf16` or `int8`.
    """
    # openvino-bf16 computes a float32 graph in bfloat16; engines of GPUs quantise a float16 graph.
    written = "fp32" if way == "openvino-bf16" and precision == "bf16" else precision
    if precision == "int8" and way in FLAVOURS:
        written = "int8-fp16"
    folder.mkdir()
    model = folder / MODEL_FILE
    model.write_bytes(gemm_model(written, size))
    inputs, outputs = graph_signature((SIDE, SIDE), 1, 1, (SIDE, SIDE))
    manifest = Manifest(
        schema=SCHEMA,
        name="gemm",
        created="2026-01-01T00:00:00+00:00",
        model=ModelInfo("gemm", (SIDE, SIDE), False, "none", None, None, "template", False, False, False, "original"),
        classes=("object",),
        precision=precision,
        opset=OPSET,
        inputs=inputs,
        outputs=outputs,
        max_batch=1,
        preprocessing=Preprocessing(RESIZE_RULE, INTERPOLATION),
        thresholds=Thresholds(0.5, 0.5, 0, "none"),
        provenance={},
        parity=None,
        files={MODEL_FILE: FileInfo(sha256_of(model), model.stat().st_size)},
        engines=(),
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle(folder, manifest)


def main() -> None:
    """The child: prints GFLOP/s as JSON, or says in one line why not."""
    try:
        rate, size = _multiply(*sys.argv[1:4])
    except (BackendError, ImportError, RuntimeError, KeyError) as error:
        sys.exit(one_line(error))
    sys.stdout.write(json.dumps({"gflops": rate, "size": size}) + "\n")


if __name__ == "__main__":
    main()
