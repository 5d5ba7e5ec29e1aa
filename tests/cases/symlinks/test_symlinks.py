"""A folder with links and a loop: run and score read the same images, each once, and say what is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.ops.score.listing import list_items
from kanoclip.runtime.sources.files.images import ImageSource

HERE = Path(__file__).parent


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("set", "real"):
        (tmp_path / name).mkdir()
    shutil.copy(HERE / "a.png", tmp_path)
    shutil.copy(HERE / "a.png", tmp_path / "real")
    shutil.copy(HERE / "ref8.png", tmp_path / "set")
    (tmp_path / "set" / "linked").symlink_to("../real")
    (tmp_path / "set" / "loop").symlink_to("..")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("source", ["set", "set/**/*.png"])
def test_run_and_score_agree(tree, toy_bundle, capsys, source):
    given = ["--bundle", str(toy_bundle), "--backend", "onnxruntime", "--no-window", "--source", source]
    assert invoke("kanoclip-run", "run", [*given, "--jsonl", "lines.jsonl"]) == 0
    found = [json.loads(line)["source"] for line in Path("lines.jsonl").read_text().splitlines()]
    assert found == ["set/linked/a.png", "set/ref8.png"]
    assert "set: 1 link is left out" in capsys.readouterr().err
    assert [one.path for one in list_items(source)] == found


def test_more_loops_and_links(tree):
    root = Path("set")
    (root / "deep").mkdir()
    (root / "deep" / "up").symlink_to("../../set")
    (root / "deep" / "self").symlink_to(".")
    (root / "again.png").symlink_to("ref8.png")
    (root / "outside.png").symlink_to(Path("a.png").resolve())
    (root / "outside-2.png").symlink_to("outside.png")
    (root / "linked-2").symlink_to("../real")
    (root / "nowhere.png").symlink_to("gone.png")
    (root / "z-whole").symlink_to(Path("far").resolve())
    (root / "round").symlink_to("about")
    (root / "about").symlink_to("round")
    far = Path("far")
    far.mkdir()
    shutil.copy("a.png", far / "b.png")
    (far / "back").symlink_to(Path("set").resolve())
    wanted = ["set/linked/a.png", "set/outside-2.png", "set/ref8.png", "set/z-whole/b.png"]
    for source in ("set", "set/**/*.png", "set/**"):
        assert sorted(one.path for one in list_items(source)) == wanted
    assert sorted(map(str, ImageSource.from_folder(root).paths)) == wanted
    assert sorted(map(str, ImageSource.from_glob("set/**/*.png").paths)) == wanted


def test_a_root_that_is_a_link(tree):
    Path("root").symlink_to("real")
    assert [one.path for one in list_items("root")] == ["root/a.png"]
    assert [str(path) for path in ImageSource.from_glob("root/*.png").paths] == ["root/a.png"]
