"""What this machine can do: measured speed of large matrix products and of copying, on the CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
ROUNDS = 10
COPIED = {"cpu": 64 << 20, "cuda": 512 << 20}


@dataclass(frozen=True)
class Peak:
    """The best of several runs each: a peak is what the machine reaches when nothing disturbs it.

    Attributes:
        gemm_gflops: Of products in `dtype`, multiply and add counted as two.
        copy_gb_s: Bytes read and written in a copy.
        dtype: torch's name.
    """

    gemm_gflops: float
    copy_gb_s: float
    dtype: str


def measure_peak(device: str, dtype: torch.dtype) -> Peak:
    """Measures both.

    Args:
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: Of the products.
    """
    kind = torch.device(device).type
    wait = torch.cuda.synchronize if kind == "cuda" else _nothing
    best = 0.0
    for size in SIZES[kind]:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * size**3 / _fastest(lambda a=left, b=right: a @ b, wait) / 1e9)
    source = torch.empty(COPIED[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() / _fastest(lambda: target.copy_(source), wait) / 1e9
    return Peak(best, copied, str(dtype).removeprefix("torch."))


def _fastest(work: Callable[[], object], wait: Callable[[], None]) -> float:
    spent = []
    for _ in range(ROUNDS):
        wait()
        started = time.perf_counter()
        work()
        wait()
        spent.append(time.perf_counter() - started)
    return min(spent)


def _nothing() -> None:
    pass
