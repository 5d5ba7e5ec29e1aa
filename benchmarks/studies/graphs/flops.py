"""Counts a graph's GEMM work from its ONNX file, and compares it with the plain image tower's.

python -m kanoclip.benchmarks.studies.graphs.flops nano.kanoclip
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.export.work import gemm_flops
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.weights.load import load_clip


class PlainTower(nn.Module):
    """CLIP's image tower as CLIP runs it: normalised pixels in, global feature out, every block in full."""

    def __init__(self, tower: ClipVV) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, C]."""
        return self.tower(pixels).global_token


def plain_tower_flops(backbone: str, size: tuple[int, int]) -> dict[str, int]:
    """The plain image tower's GEMM work, counted from an ONNX export of it at batch 1."""
    clip, _ = load_clip(get_backbone(backbone), "none")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tower.onnx"
        write_plain_tower(clip.visual, size, path)
        return gemm_flops(path)


def write_plain_tower(visual: VisionTransformer, size: tuple[int, int], path: Path) -> None:
    """Exports an open_clip image tower as CLIP runs it, at batch 1: pixels float32 [1, 3, H, W] in."""
    module = PlainTower(ClipVV(visual, size, vv=False)).eval()
    program = torch.onnx.export(module, (torch.zeros(1, 3, *size),), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(path, external_data=True)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
def main(bundle: Path, output: Path | None) -> None:
    """Compare BUNDLE's GEMM FLOPs with those of the plain image tower."""
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    whole = gemm_flops(opened.model_path, manifest.max_batch)
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
