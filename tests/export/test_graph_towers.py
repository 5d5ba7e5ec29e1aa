"""The deployed graph of every kind of tower: against torch, and through ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import small_towers
import torch

from kanoclip.export.checks import check_graph, count_attention
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.quantisation.quantize import quantizable
from kanoclip.runtime.bundle.tolerances import BOUNDS
from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig, to_pixels

from .conftest import randomise


def shake(module, seed=0, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return module


@pytest.fixture(scope="module", params=small_towers.KINDS)
def model(request):
    made = small_towers.model(request.param, shake)
    randomise(made)
    return made


def frames(model, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, *model.config.image_size, 3), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def expected(model, frame):
    pixels = to_pixels(frame, model.tower.normalisation)
    output = model(pixels, model.text_features(["nut"]))
    assert output.map.std() > 1e-3
    return output.map, output.score, model.tower.describe(pixels)


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("fp16", 8e-3)])
def test_the_graph_is_the_model(model, precision, bound):
    """Preprocessing folded, with the patches' own bias and the pixels' own range."""
    frame = frames(model)
    with torch.no_grad():
        got = DeployGraph(model, ["nut"], precision)(frame)
    for mine, theirs in zip(got, expected(model, frame), strict=True):
        assert (mine - theirs).abs().max() < bound


def parity(model, precision, folder):
    """Exports, checks the graph's rules, and compares ONNX Runtime with torch."""
    path = folder / "model.onnx"
    write_onnx(DeployGraph(model, ["nut"], precision), model.config.image_size, BatchSpec(), 18, path)
    check_graph(path, precision)
    frame = frames(model, 1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got_map, got_score, descriptor = session.run(None, {"frame": frame.numpy()})
    want_map, want_score, described = expected(model, frame)
    bounds = BOUNDS[precision]
    assert np.abs(got_map - want_map.numpy()).max() < bounds.map
    assert np.abs(got_score - want_score.numpy()).max() < bounds.score
    assert (1 - (descriptor * described.numpy()).sum(-1)).max() < bounds.descriptor
    return path


def test_onnx_runtime_gives_torchs_answers_in_half_precision(tmp_path):
    made = small_towers.model("pe-core", shake)
    randomise(made)
    path = parity(made, "fp16", tmp_path)
    # 4 blocks of the original path and 4 of the local one; the pooling head has no product of queries and keys.
    graph = onnx.load(path, load_external_data=False).graph
    assert count_attention(graph) == 8
    # Its logits are products with a constant matrix, and int8 must leave them alone as it does Q K^T.
    assert "tower.pool.probes" in {tensor.name for tensor in graph.initializer}
    quantised = {name for node in graph.node if node.name in quantizable(graph) for name in node.input}
    assert "tower.pool.out.weight" in quantised and "tower.pool.probes" not in quantised


@pytest.mark.nightly
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_gives_torchs_answers_for_every_kind(model, precision, tmp_path):
    parity(model, precision, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "attention"), [("siglip2-b-16", 12 + 10), ("pe-core-t-16-384", 12 + 10)])
def test_an_rtx_engine_fuses_the_attention_of_the_full_tower(name, attention, tmp_path):
    """Counted in the engine's bytes; no GPU is needed. Seeded: what is fused depends on shapes alone."""
    pytest.importorskip("tensorrt_rtx")
    from kanoclip.export.fused_attention import count_fused
    from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions, build_engine
    from kanoclip.runtime.engines.tensorrt.flavour import load_flavour

    backbone = get_backbone(name)
    config = ModelConfig(name, backbone.native_size)
    tokenizer = small_towers.Letters() if backbone.tokenizer == "gemma" else None
    model = KAnoCLIP(seeded_clip(backbone), config, normalisation=backbone.normalisation, tokenizer=tokenizer)
    path = tmp_path / "model.onnx"
    write_onnx(DeployGraph(model, ["nut"], "fp16"), config.image_size, BatchSpec(), 18, path)
    blocks = count_attention(onnx.load(path, load_external_data=False).graph)
    options = BuildOptions(targets=("8.6", "8.9"))
    fused = count_fused(build_engine(load_flavour("tensorrt-rtx"), path, options, lambda share: None))
    print(name, blocks, fused)
    assert (blocks, fused) == (attention, attention)
