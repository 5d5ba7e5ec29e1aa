from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from kanoclip.benchmarks.studies.graphs import graph_savings
from kanoclip.benchmarks.studies.graphs.graph_savings import SAVINGS, SHIPPED, TOWER, Saving, main, write_graphs
from kanoclip.export.graph import DeployGraph
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.checkpoint import build_model
from kanoclip.train.model.kanoclip import ModelConfig

SIZE = (64, 64)


@pytest.fixture
def model():
    """With a head that is not the identity."""
    model = build_model(ModelConfig("random-tiny", SIZE), "none").model
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("name", [name for name, saving in SAVINGS.items() if saving.rewrite is None])
def test_a_graph_without_a_saving_answers_the_same(model, name):
    frame = torch.randint(0, 256, (1, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole, without = DeployGraph(model, ["object"], "fp32"), DeployGraph(model, ["object"], "fp32")
    SAVINGS[name].undo(without, model)
    with torch.no_grad():
        for got, wanted in zip(without(frame), whole(frame), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.nightly
def test_a_graph_that_answers_otherwise_is_refused(model, tmp_path):
    def break_it(graph, model):
        graph.text.neg_()

    with pytest.raises(KanoclipError, match="without 'sense' answers otherwise"):
        write_graphs(model, tmp_path, {SHIPPED: Saving(), "sense": Saving(break_it)})


@pytest.mark.nightly
def test_figures_of_every_graph_in_both_engines(monkeypatch, tmp_path):
    names = [SHIPPED, "products with text tokens made once per class", "GELU in the order that engines fuse"]
    monkeypatch.setattr(graph_savings, "SAVINGS", {name: SAVINGS[name] for name in names})
    output = tmp_path / "o.json"
    done = CliRunner().invoke(main, ["--backbone", "random-tiny", "--rounds", "1", "--output", str(output)])
    assert done.exit_code == 0, done.output
    told = json.loads(output.read_text())
    assert list(told["without"]) == [*names, TOWER]
    for row in told["without"].values():
        assert row["onnxruntime"]["median_ms"] > 0 and row["openvino"]["median_ms"] > 0
    assert told["without"][names[1]]["gflop_ratio"] > 1
    assert told["without"][names[2]]["gflop_ratio"] == 1
    assert told["graph_to_plain_tower"]["gflop"] > 1
