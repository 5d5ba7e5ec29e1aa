"""Products of whole models against plain towers: within the bound, or above it by what is written down."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.graphs.tower_work import main, tower_work

RATIOS = {
    "vit-b-16": 1.2,
    "vit-l-14-336": 1.2,
    "vit-b-32-256": 1.2,
    "eva02-b-16": 1.2,
    # A pooling head reads every patch of four stages alone, and no block can be cut short before it.
    "siglip2-b-16": 1.345,
    "siglip2-l-16-256": 1.22,
    # 576 patches of width 192: attention is a third of the plain tower, and V-V attention nearly as much again.
    "pe-core-t-16-384": 1.655,
    "pe-core-l-14-336": 1.26,
}
NIGHTLY = [name for name in RATIOS if name not in ("vit-b-16", "siglip2-b-16", "pe-core-t-16-384")]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly if name in NIGHTLY else ()) for name in RATIOS]
)
def test_whole_models_against_the_plain_tower(name):
    assert RATIOS[name] - 0.2 < tower_work(name).ratio <= RATIOS[name]


def test_parts_are_what_their_equations_ask_for():
    work, cells, width = tower_work("siglip2-b-16"), 14 * 14, 768
    assert work.vv_attention == 10 * 2 * 2 * cells**2 * width  # ten blocks, two products
    assert work.vv_projection == 10 * 2 * cells * width**2
    assert work.pooling == 4 * 2 * cells * 9 * width**2  # a projection, and a feed-forward part of four widths
    # K and V of the pooling head fall away, the query being a constant.
    assert work.plain - work.original == pytest.approx(2 * cells * 2 * width**2, rel=0.1)


def test_the_table_and_what_it_refuses():
    table = CliRunner().invoke(main, ["vit-b-16"])
    assert table.exit_code == 0 and "| `vit-b-16` | 0.9" in table.output
    for name, why in (("nano", "has a stem"), ("rn50", "does not suit")):
        refused = CliRunner().invoke(main, [name])
        assert refused.exit_code == 2 and why in refused.output
