"""The same frames through torch and the runtime's engines, in turns, with each one's share of what the machine can do.

    python -m kanoclip.benchmarks.compare --device cuda --runner torch --runner torch-compile --runner onnxruntime \
        --runner tensorrt-rtx --output benchmarks/results/compare-gpu-nano.json

One frame at a time, uint8 on the host to map and score on the host: copies count. On a GPU torch computes in float16
with its own scaled_dot_product_attention, and the engines run the fp16 export; on the CPU all compute in float32.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from kanoclip.benchmarks.flops import gemm_flops
from kanoclip.benchmarks.held_out import kanoclip
from kanoclip.benchmarks.results import write_result
from kanoclip.benchmarks.roofline import measure_peak
from kanoclip.runtime.backends import BACKENDS, create_backend
from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.errors import KanoclipError, one_line
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import build_model, load_checkpoint
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig, to_pixels
from kanoclip.train.weights import CHECKPOINT, packaged

TORCH = ("torch", "torch-compile")
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Frames uint8 [B, H, W, 3] to maps and scores, all on the host."""


def torch_runner(model: KAnoCLIP, device: str, *, compiled: bool) -> Run:
    """The model in torch: float16 on a GPU, float32 on the CPU.

    Args:
        model: Float32, on the CPU; moved and cast.
        device: Where to run.
        compiled: By torch.compile, for the lowest latency.
    """
    half = device != "cpu"
    dtype = torch.float16 if half else torch.float32
    text = model.text_features(["object"]).to(device, dtype)
    model = model.to(device, dtype)

    def compute(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = model(to_pixels(frames).to(dtype), text.expand(len(frames), -1, -1))
        return output.map.float(), output.score.float()

    if compiled:
        compute = torch.compile(compute, mode="max-autotune" if half else "max-autotune-no-cudagraphs")

    def run(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            maps, scores = compute(torch.from_numpy(frames).to(device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    return run


def take_turns(runners: Mapping[str, Run], frame: np.ndarray, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Milliseconds of every run, A B A B: what disturbs this machine meanwhile then hits all of them."""
    for run in runners.values():
        for _ in range(warmup):
            run(frame)
    spent: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            started = time.perf_counter()
            run(frame)
            spent[name].append((time.perf_counter() - started) * 1e3)
    return spent


def summarise(spent: Mapping[str, list[float]], gflop: float, peak_gflops: float) -> dict[str, dict[str, float]]:
    """Percentiles, ratio to the first runner (median of each round's ratio) and share of the peak."""
    first = np.array(next(iter(spent.values())))
    return {
        name: {
            **{f"p{share}_ms": float(np.percentile(times, share)) for share in (50, 90, 95, 99)},
            "ratio": float(np.median(np.array(times) / first)),
            "share_of_gemm_peak": gflop / (float(np.median(times)) / 1e3) / peak_gflops,
        }
        for name, times in spent.items()
    }


def model_of(backbone: str) -> KAnoCLIP:
    """The packaged model, or a seeded one: speed does not depend on the weights."""
    if backbone == "nano":
        return load_checkpoint(packaged(CHECKPOINT), "auto").model
    return build_model(ModelConfig(backbone, get_backbone(backbone).native_size), "none").model


@click.command()
@click.option("--backbone", default="nano", show_default=True)
@click.option(
    "--runner",
    "names",
    multiple=True,
    type=click.Choice([*TORCH, *(name for name in BACKENDS if name != "auto")]),
    default=("torch", "onnxruntime"),
    show_default=True,
    help="Repeatable; the first is what the others are compared with.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--rounds", default=50, show_default=True)
@click.option("--warmup", default=5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(backbone: str, names: tuple[str, ...], device: str, rounds: int, warmup: int, output: Path | None) -> None:
    """Measure on the same frame, in turns."""
    half = device != "cpu"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compared.kanoclip"
        model = [] if backbone == "nano" else ["--backbone", backbone, "--weights", "none"]
        kanoclip("export", *model, "--fp16" if half else "--fp32", "--output", path, "--parity-limit", 2)
        bundle = Bundle.open(path)
        frame = bundle.samples()[0][None]
        runners: dict[str, Run] = {}
        for name in names:
            try:
                if name in TORCH:
                    runners[name] = torch_runner(model_of(backbone), device, compiled=name == "torch-compile")
                else:
                    backend = create_backend(bundle, name, device)
                    runners[name] = lambda frames, run=backend.run: run(frames, None)
                runners[name](frame)
            # torch.compile needs a compiler and raises its own kinds without one; the others go on.
            except (KanoclipError, RuntimeError) as error:
                click.echo(f"{name} does not run here: {one_line(error)}", err=True)
                runners.pop(name, None)
        if not runners:
            raise KanoclipError("nothing runs here: name another --runner")
        gflop = sum(gemm_flops(bundle.model_path).values()) / 1e9
        peak = measure_peak(device, torch.float16 if half else torch.float32)
        found = summarise(take_turns(runners, frame, rounds, warmup), gflop, peak.gemm_gflops)
    result: dict[str, Any] = {
        "backbone": backbone,
        "device": torch.cuda.get_device_name(device) if half else "cpu",
        "rounds": rounds,
        "gflop": gflop,
        "peak": asdict(peak),
        "runners": found,
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
