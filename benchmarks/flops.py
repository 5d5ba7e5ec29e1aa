"""Counts a graph's GEMM work from its ONNX file, and compares it with the plain image tower's.

python -m kanoclip.benchmarks.flops nano.kanoclip
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import click
import onnx
import torch
from torch import Tensor, nn

from kanoclip.benchmarks.results import write_result
from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.errors import ExportError
from kanoclip.train.backbones import get_backbone, load_clip
from kanoclip.train.model.clip_vv import ClipVV


class PlainTower(nn.Module):
    """CLIP's image tower as CLIP runs it: normalised pixels in, global feature out, every block in full."""

    def __init__(self, tower: ClipVV) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        return self.tower(pixels).global_token


def gemm_flops(path: Path) -> dict[str, int]:
    """Multiply-adds counted as two operations, per operator type, for a graph of static shape.

    Args:
        path: An ONNX file; weights beside it are not read.

    Raises:
        ExportError: A shape is not static.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = {"MatMul": 0, "Gemm": 0, "Conv": 0}
    for node in graph.node:
        if node.op_type not in total:
            continue
        first, second, out = (shapes.get(name, []) for name in (node.input[0], node.input[1], node.output[0]))
        if not (first and second and out) or 0 in (*first, *second, *out):
            raise ExportError(f"{path}: the shapes around {node.name} are not static: count a static export")
        if node.op_type == "Conv":
            inner = math.prod(second[1:])
        elif node.op_type == "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = first[0] if transposed else first[1]
        else:
            inner = first[-1]
        total[node.op_type] += 2 * math.prod(out) * inner
    return total


def plain_tower_flops(backbone: str, size: tuple[int, int]) -> dict[str, int]:
    """The plain image tower's GEMM work, counted from an ONNX export of it at batch 1."""
    clip, _ = load_clip(get_backbone(backbone), "none")
    module = PlainTower(ClipVV(clip.visual, size, vv=False)).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.onnx"
        program = torch.onnx.export(module, (torch.zeros(1, 3, *size),), dynamo=True, opset_version=18, verbose=False)
        assert program is not None
        program.save(path, external_data=True)
        return gemm_flops(path)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(bundle: Path, output: Path | None) -> None:
    """Compare BUNDLE's GEMM FLOPs with those of the plain image tower."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    whole = gemm_flops(opened.model_path)
    plain = plain_tower_flops(manifest.model.backbone, manifest.model.image_size)
    batch = manifest.max_batch
    result = {
        "backbone": manifest.model.backbone,
        "image_size": list(manifest.model.image_size),
        "graph_gflops": sum(whole.values()) / batch / 1e9,
        "plain_tower_gflops": sum(plain.values()) / 1e9,
        "ratio": sum(whole.values()) / batch / sum(plain.values()),
        "by_operator": whole,
    }
    click.echo(json.dumps(result, indent=2))
    if output is not None:
        write_result(output, result)


if __name__ == "__main__":
    main()
