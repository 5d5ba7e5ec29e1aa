"""What a run wrote into its source's folder is not scored by the next run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.sources.files.watched import WatchSource
from kanoclip.runtime.system.files.own import MARK


@pytest.fixture
def folder(tmp_path, toy_bundle, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for n in range(2):
        cv2.imwrite(f"in/{n}.png", np.full((40, 40, 3), 250, np.uint8))
    return tmp_path


@pytest.fixture
def scored(folder, toy_bundle):
    """Runs with the source and more flags; returns the files that were scored."""

    def run(source, *more):
        line = ["--bundle", str(toy_bundle), "--source", source, "--threshold", "0", "--jsonl", "lines", "--quiet"]
        assert invoke("kanoclip-run", "run", [*line, *more]) == 0
        return sorted(json.loads(line)["source"] for line in Path("lines").read_text().splitlines())

    return run


IMAGES = ["in/0.png", "in/1.png"]
MORE = ("--output", "in/out", "--snapshots", "in/deep/snapshots", "--snapshots-interval", "0")


@pytest.mark.parametrize("source", ["in", "in/**/*.png", "in/**/*", "./in"])
def test_a_second_run_scores_the_same(scored, source):
    for _ in range(3):
        assert [Path(one).as_posix() for one in scored(source, *MORE)] == IMAGES
    assert len(list(Path("in/deep/snapshots").glob("*.map.png"))) == 6
    assert sorted(path.name for path in Path("in/out").iterdir()) == [MARK, "0.png", "1.png"]


def test_the_folder_above_is_read_without_them_too(scored, tmp_path):
    scored("in", *MORE)
    assert scored(str(tmp_path)) == [str(tmp_path / one) for one in IMAGES]


def test_a_folder_that_is_named_is_read(scored):
    scored("in", *MORE)
    assert scored("in/out") == ["in/out/0.png", "in/out/1.png"]
    snapshots = scored("in/deep/snapshots")
    assert len(snapshots) == 2
    assert not any(".annotated" in one or ".map" in one for one in snapshots)


def test_deleting_the_mark_undoes_it(scored):
    scored("in", "--output", "in/out")
    Path("in/out", MARK).unlink()
    assert len(scored("in")) == 4


def test_a_folder_of_outputs_alone_says_why_nothing_is_read(scored, capfd, toy_bundle):
    scored("in", "--output", "all/out")
    capfd.readouterr()
    assert invoke("kanoclip-run", "run", ["--bundle", str(toy_bundle), "--source", "all"]) == 1
    assert "2 images and folders such as all/out/0.png were written by kanoclip" in capfd.readouterr().err


def test_a_watched_folder_does_not_feed_itself(scored):
    scored("in", *MORE)
    source = WatchSource("watch://in?existing=1&every=0.02")
    frames = source.frames()
    assert sorted(next(frames).source for _ in range(2)) == IMAGES
    assert source._known.count == 2
    source.close()


def test_a_plot_beside_the_images(folder, toy_bundle, scored):
    line = ["--source", "in", "--plot", "in/plot.png", "--false-alarm-rate", "0.5", "--dry-run"]
    for _ in range(2):
        assert invoke("kanoclip-calibrate", "calibrate", [str(toy_bundle), *line]) == 0
    assert Path("in/plot.png").is_file()
    assert scored("in") == IMAGES


def test_maps_beside_the_images(folder, toy_bundle):
    parquet = pytest.importorskip("pyarrow.parquet")
    line = ["--bundle", str(toy_bundle), "--source", "in", "--processes", "1", "--quiet"]
    for name in ("a.parquet", "b.parquet"):
        assert invoke("kanoclip-score", "score", [*line, "--maps", f"in/maps-{name}", "--output", name]) == 0
        assert parquet.read_table(name)["path"].to_pylist() == IMAGES
    assert list(Path("in/maps-a.parquet").rglob("*.png"))
