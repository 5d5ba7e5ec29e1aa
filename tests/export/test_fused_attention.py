from __future__ import annotations

import onnx
import pytest

from kanoclip.export.checks import count_attention
from kanoclip.export.fused_attention import count_fused, write_blocks
from kanoclip.export.graph import DeployGraph, cast_weights
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions, build_engine
from kanoclip.runtime.engines.tensorrt.flavour import load_flavour

pytest.importorskip("tensorrt_rtx")


def engine(path):
    return build_engine(load_flavour("tensorrt-rtx"), path, BuildOptions(targets=("8.6", "8.9")), lambda share: None)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_many_blocks_are_found_as_there_are(tmp_path, count):
    write_blocks(tmp_path / "blocks.onnx", count)
    assert count_attention(onnx.load(tmp_path / "blocks.onnx").graph) == count
    assert count_fused(engine(tmp_path / "blocks.onnx")) == count


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_every_block_of_the_shipped_architecture_is_fused_in_half_precision_and_none_in_full(tmp_path, precision):
    from kanoclip.train.checkpoint import build_model
    from kanoclip.train.model.kanoclip import ModelConfig

    path = tmp_path / "model.onnx"
    model = build_model(ModelConfig("nano", (256, 256)), "none").model
    write_onnx(DeployGraph(model, ["bolt"], precision), (256, 256), BatchSpec(), 18, path)
    blocks = count_attention(onnx.load(path).graph)
    # 3 blocks of the original path, 4 of the local one, and the class token's last one.
    assert blocks == 8
    assert count_fused(engine(path)) == (blocks if precision == "fp16" else 0)


def test_the_class_tokens_last_attention_is_fused_with_as_many_heads_as_vit_l_has(tmp_path):
    """TensorRT-RTX 1.7.1 fuses attention of one query row over 3 heads, but not over 8 or more: two rows are asked."""
    import torch
    from open_clip.transformer import ResidualAttentionBlock

    from kanoclip.train.model.towers.adapters import open_clip_block
    from kanoclip.train.model.towers.blocks import FinalBlock

    block = FinalBlock(open_clip_block(ResidualAttentionBlock(512, 8)), "original").eval()
    cast_weights(block, torch.half)
    tokens = torch.zeros(1, 50, 512, dtype=torch.half)
    with torch.no_grad():
        program = torch.onnx.export(block, (tokens,), dynamo=True, opset_version=18, verbose=False)
    program.save(tmp_path / "final.onnx")
    assert program.model.graph.outputs[1].shape.numpy() == (1, 1, 512), "and one row comes out"
    assert count_attention(onnx.load(tmp_path / "final.onnx").graph) == 1
    assert count_fused(engine(tmp_path / "final.onnx")) == 1
