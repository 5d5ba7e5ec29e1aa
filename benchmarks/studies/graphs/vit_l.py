"""ViT-L/14@336 with seeded weights: parity in fp32 and fp16, and a TensorRT-RTX engine built with no GPU.

    python -m kanoclip.benchmarks.studies.graphs.vit_l --output benchmarks/results/graphs/vit-l-14-336.json

Each export is the installed command in a process of its own. An untrained head is the identity, so parity is also
measured with a head of random values ("random head"), where Bi-CMCI and the Conv-Adapter change the result.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch

from kanoclip.benchmarks.studies.graphs.flops import plain_tower_flops
from kanoclip.benchmarks.studies.results import write_result
from kanoclip.export.work import gemm_flops
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.checkpoint import build_model, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig

BACKBONE, SIZE = "vit-l-14-336", (336, 336)
TARGETS = ("8.6", "8.9", "12.0")
ENGINE_CHILD = """
import sys
from pathlib import Path
from kanoclip.export.engine import EngineRequest, write_engine
from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions
request = EngineRequest("tensorrt-rtx", BuildOptions(targets=tuple(sys.argv[3:])))
built = write_engine(Path(sys.argv[1]), Path(sys.argv[2]), request, lambda step, share: None)
print(built.version, Path(sys.argv[2], built.file).stat().st_size)
"""


def measured(command: list[str]) -> tuple[str, dict[str, float]]:
    """Runs a command; its standard output, wall seconds and peak memory in MB."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise KanoclipError(f"{command[:3]} failed: {err.read().strip()}")
        return out.read(), {"wall_s": wall, "peak_mb": usage.ru_maxrss / 1024}


def random_head(path: Path) -> None:
    """Writes a checkpoint whose zero-initialised projections hold random values."""
    loaded = build_model(ModelConfig(BACKBONE, SIZE), "none")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in loaded.model.head.named_parameters():
            if "out." in name or "up." in name or "offsets" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    save_checkpoint(path, loaded.model, loaded.weights)


@click.command()
@click.option("--parity-limit", default=8, show_default=True, help="Images for each parity run.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(parity_limit: int, output: Path | None) -> None:
    """Measure exports and the engine build of ViT-L/14@336."""
    result: dict[str, Any] = {"backbone": BACKBONE, "weights": "seeded", "exports": {}}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        random_head(folder / "head.safetensors")
        for precision in ("fp32", "fp16"):
            for head, model in (
                ("untrained head", ["--backbone", BACKBONE]),
                ("random head", ["--checkpoint", str(folder / "head.safetensors")]),
            ):
                bundle = folder / "model.kanoclip"
                command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "export", *model, "--weights", "none"]
                command += [f"--{precision}", "--output", str(bundle), "--parity-limit", str(parity_limit), "--json"]
                text, cost = measured(command)
                result["exports"][f"{precision}, {head}"] = {**json.loads(text)["parity"], **cost}
                click.echo(f"{precision}, {head}: {result['exports'][f'{precision}, {head}']}", err=True)
        text, cost = measured([sys.executable, "-c", ENGINE_CHILD, str(bundle / "model.onnx"), scratch, *TARGETS])
        version, size = text.split()
        result["engine"] = {"tensorrt_rtx": version, "targets": TARGETS, "bytes": int(size), **cost}
        plain = sum(plain_tower_flops(BACKBONE, SIZE).values())
        whole = sum(gemm_flops(bundle / "model.onnx").values())
        result["gemm"] = {"graph_gflops": whole / 1e9, "plain_tower_gflops": plain / 1e9, "ratio": whole / plain}
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
