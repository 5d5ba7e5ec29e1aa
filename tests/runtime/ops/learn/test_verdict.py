"""The verdict by its rules, and what to try next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from references import memory

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.reference.memory import Fusion
from kanoclip.runtime.ops.learn.verdict import FAR, decide, distance_at

SIZES = {"frame_size": (256, 256), "model_size": (256, 256)}


def of(count, **changes):
    return replace(memory(1), names=tuple(map(str, range(count))), **changes)


@pytest.mark.parametrize(
    ("recall", "word"), [(0.95, "usable"), (0.8, "usable"), (0.7, "usable with care"), (0.3, "not usable")]
)
def test_by_recall(recall, word):
    found = decide(of(50), 0.6, recall, **SIZES)
    assert found.word == word and f"{recall:.0%}" in found.why
    assert bool(found.next_steps) == (word != "usable")


def test_few_references_are_never_sure():
    found = decide(of(3), 0.6, 1.0, **SIZES)
    assert found.word == "usable with care" and "3 references" in found.why and "more good" in found.next_steps[0]


def test_without_bad_frames_no_part_is_usable():
    close = of(50, fusion=Fusion(10, 0.1, 0, 0, -2))
    found = decide(close, 0.6, None, **SIZES)
    assert found.word == "usable with care" and "--bad" in found.next_steps[0]
    far = of(50, fusion=Fusion(2, 0.4, 0, 0, -2))
    assert distance_at(far, 0.6) > FAR and decide(far, 0.6, None, **SIZES).word == "not usable"


def test_the_distance_at_a_threshold():
    assert distance_at(of(1, fusion=Fusion(10, 0.1, 0, 0, -2)), 0.5) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("tiles", "size", "said"),
    [(None, (500, 1240), True), (None, (256, 256), False), (TileGrid(1, 3, 0.15), (500, 1240), False)],
)
def test_tiles_where_they_may_help(tiles, size, said):
    found = decide(of(20, tiles=tiles), 0.6, 0.1, frame_size=size, model_size=(256, 256))
    assert any("--tiles 1x3 --output" in step for step in found.next_steps) == said
    assert "larger tower" in found.next_steps[-1]
