import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.data.types import Sample
from kanoclip.train.evaluation.evaluate import Case
from kanoclip.train.evaluation.sheet import TILE, CaseKeeper, draw_sheet, write_sheet


def case(score, anomalous, name="a.png", mask=True):
    from pathlib import Path

    heat = np.full((8, 8), score, np.float32)
    truth = np.zeros((8, 8), bool)
    truth[2:4] = anomalous
    image = np.full((10, 14, 3), int(score * 255), np.uint8)
    return Case("nut", Sample(Path(name), anomalous, None, "bad", "test"), image, truth if mask else None, heat, score)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=30), st.integers(1, 5))
def test_keeps_the_most_telling(pairs, each):
    keeper = CaseKeeper(each)
    for score, anomalous in pairs:
        keeper(case(score, anomalous))
    bad = sorted(score for score, anomalous in pairs if anomalous)
    good = sorted(score for score, anomalous in pairs if not anomalous)
    assert [c.score for c in keeper.kind("missed")] == bad[:each]
    assert [c.score for c in keeper.kind("caught")] == bad[::-1][:each]
    assert [c.score for c in keeper.kind("alarms")] == good[::-1][:each]
    assert [c.score for c in keeper.kind("passed")] == good[:each]


def test_first_come_wins_ties():
    keeper = CaseKeeper(2)
    for name in "abcd":
        keeper(case(0.5, True, name))
    assert [c.sample.image.name for c in keeper.kind("missed")] == ["a", "b"]
    assert [c.sample.image.name for c in keeper.kind("caught")] == ["a", "b"]


def test_kept_images_are_small():
    keeper = CaseKeeper(1)
    keeper(case(0.5, True))
    assert keeper.kind("missed")[0].image.shape == (TILE, TILE, 3)


def test_sheet_shows_input_mask_map_and_overlay():
    keeper = CaseKeeper(3)
    for score, anomalous in ((0.9, True), (0.2, True), (0.1, False)):
        keeper(case(score, anomalous))
    sheet = draw_sheet(keeper)
    lefts = [half * (4 * (TILE + 6) + 6) + 6 + i * (TILE + 6) for half in (0, 1) for i in range(4)]
    tiles = [sheet[30 : 30 + TILE, left : left + TILE] for left in lefts]
    assert np.abs(tiles[0].astype(int) - 51).max() == 0, "the worst miss comes first: 0.2 of 255"
    assert set(np.unique(tiles[1])) == {0, 255} and (tiles[1] > 0).mean() == pytest.approx(0.25)
    assert len(np.unique(tiles[2].reshape(-1, 3), axis=0)) == 1, "an even map has one colour"
    assert (tiles[3] == tiles[0]).all() and (tiles[7] != tiles[4]).any(), "only a high map is laid over its image"


def test_no_mask_is_not_drawn_as_an_empty_one():
    keeper = CaseKeeper(1)
    keeper(case(0.5, True, mask=False))
    tile = draw_sheet(keeper)[30 : 30 + TILE, 12 + TILE : 12 + 2 * TILE]
    assert tile.min() < 100 and np.median(tile) > 200


def test_file(tmp_path):
    keeper = CaseKeeper(1)
    keeper(case(0.5, False))
    for name in ("a.png", "new/b.JPG"):
        write_sheet(tmp_path / name, keeper)
        assert cv2.imread(str(tmp_path / name)) is not None
    with pytest.raises(KanoclipError, match="choose another place"):
        write_sheet(tmp_path / "a.png" / "b.png", keeper)


def test_nothing_to_show_is_still_an_image(tmp_path):
    write_sheet(tmp_path / "a.png", CaseKeeper(1))
    assert cv2.imread(str(tmp_path / "a.png")) is not None
