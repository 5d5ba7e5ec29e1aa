"""An output that is the source, or anything else that the command reads, is refused and nothing is touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.cli.main import invoke

CLIP = Path(__file__).parent / "clip.mp4"


@pytest.fixture
def folder(tmp_path, toy_bundle, monkeypatch):
    """A folder with a clip, some images and a bundle, to stand in."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, "clip.mp4")
    os.link("clip.mp4", "hard.mp4")
    Path("link.mp4").symlink_to("clip.mp4")
    shutil.copytree(toy_bundle, "a.kanoclip")
    Path("in").mkdir()
    for n in range(3):
        cv2.imwrite(f"in/{n}.png", np.full((40, 40, 3), 60 * n, np.uint8))
    os.link("in/1.png", "one.png")
    Path("in/sub").mkdir()
    shutil.copy("in/1.png", "in/sub/0.png")
    Path("line.toml").write_text('[decision]\nroi = "roi.json"\n')
    Path("roi.json").write_text(json.dumps({"units": "relative", "keep": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}))
    return tmp_path


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".changing"
    }


@pytest.mark.parametrize(
    "line",
    [
        "kanoclip-run --source clip.mp4 --output ./clip.mp4",
        "kanoclip-run --source clip.mp4 --output link.mp4",
        "kanoclip-run --source clip.mp4 --output hard.mp4",
        "kanoclip-run --source link.mp4 --output clip.mp4",
        "kanoclip-run --source clip.mp4 --jsonl clip.mp4",
        "kanoclip-run --source clip.mp4 --jsonl in/../hard.mp4",
        "kanoclip-run --source clip.mp4 --jsonl clip.mp4 --jsonl-append",
        "kanoclip-run --source in --jsonl in/2.png",
        "kanoclip-run --source in --jsonl one.png",
        "kanoclip-run --source in/*.png --jsonl one.png",
        "kanoclip-run --source watch://in --jsonl in/0.png",
        "kanoclip-run --source watch://in --snapshots in",
        "kanoclip-run --source in --output in",
        "kanoclip-run --source in --snapshots in/",
        "kanoclip-run --source in --jsonl a.kanoclip/manifest.json",
        "kanoclip-run --source in --jsonl a.kanoclip/model.onnx",
        "kanoclip-run --source in --snapshots a.kanoclip/snapshots",
        "kanoclip-run --source in --config line.toml --jsonl roi.json",
        "kanoclip-run --source in --roi roi.json --jsonl roi.json",
        "kanoclip-run --source clip.mp4 --source hard.mp4 --output x.mp4 --jsonl link.mp4",
        "kanoclip-calibrate a.kanoclip --source in --plot in/1.png",
        "kanoclip-calibrate a.kanoclip --source in --plot one.png",
        "kanoclip-calibrate a.kanoclip --source in --dry-run --plot a.kanoclip/plot.png",
        "kanoclip-learn a.kanoclip --source in --plot in/1.png",
        "kanoclip-learn a.kanoclip --source in --roi roi.json --foreground roi.json",
        # Annotated images of `in/0.png` would be `in/sub/0.png`, a source, and `in/sub` be left out later.
        "kanoclip-run --source in --output in/sub",
        "kanoclip-run --source in --snapshots in/sub",
        "kanoclip-run --source in/**/*.png --output in/sub",
        "kanoclip-run --source in/sub/0.png --snapshots in",
        "kanoclip-run --source watch://in?done=done --output done",
        "kanoclip-run --source watch://in?done=done --output done/sub",
        "kanoclip-run --source gst://filesrc\0location=clip.mp4\0!\0decodebin --output clip.mp4",
        "kanoclip-run --source gst://uridecodebin\0uri=file://CWD/clip.mp4 --output ./clip.mp4",
        "kanoclip-doctor a.kanoclip --report a.kanoclip/manifest.json",
        "kanoclip-bench a.kanoclip --output b.json --html ./b.json",
        "kanoclip-bench a.kanoclip --markdown b.json --resume b.json",
        "kanoclip-eval --dataset folder --root in --output x.json --csv x.json",
        "kanoclip-bundle push a.kanoclip a.kanoclip",
        "kanoclip-bundle push a.kanoclip file://CWD/a.kanoclip/store",
        "kanoclip-bundle pull store --unsigned --output a.kanoclip/new",
    ],
)
def test_nothing_that_is_read_is_overwritten(line, folder, capfd):
    before = contents(folder)
    program, *arguments = [one.replace("\0", " ").replace("CWD", str(folder)) for one in line.split()]
    code = invoke(program, program.partition("-")[2], arguments)
    *_, shown = capfd.readouterr().err.splitlines()  # doctor says what machine it is first
    assert code in (1, 2)
    assert shown.startswith("error: ")
    assert any(
        words in shown
        for words in ("would overwrite", "exclude", "leave out --roi", "own file", "left out", "lies in the")
    ), shown
    assert contents(folder) == before


def test_a_table_of_scores_is_not_overwritten(folder, capfd):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": ["in/0.png"]}), "list.parquet")
    os.link("list.parquet", "hard.parquet")
    before = contents(folder)
    for line in (
        "kanoclip-score --source list.parquet --output list.parquet",
        "kanoclip-score --source list.parquet --output hard.parquet --restart",
        "kanoclip-score --source in --output a.kanoclip/x.parquet",
        "kanoclip-score --source in --output x.parquet --maps in",
    ):
        program, *arguments = line.split()
        assert invoke(program, program.partition("-")[2], arguments) == 1, line
        assert "would overwrite" in capfd.readouterr().err
    assert contents(folder) == before


def test_a_page_is_not_written_over_its_table(folder, capfd):
    pytest.importorskip("pyarrow")
    Path("t.parquet").write_bytes(b"rows")
    os.link("t.parquet", "hard.html")
    for more in ("--output t.parquet", "--output hard.html", "--reference o.html --output o.html", "--output in/0.png"):
        assert invoke("kanoclip-report", "report", ["t.parquet", *more.split()]) in (1, 2)
        shown = capfd.readouterr().err
        assert "would overwrite" in shown or "is an .html file" in shown
    assert Path("t.parquet").read_bytes() == b"rows"


def test_a_bundle_in_use_is_no_place_to_install_into(folder, capfd):
    before = contents(folder)
    for place in ("a.kanoclip", "a.kanoclip/sub"):
        line = ["pull", "oci://localhost:1/x", "--unsigned", "--install", place]
        assert invoke("kanoclip-bundle", "bundle", line) == 1
        assert "may be in use" in capfd.readouterr().err
    assert contents(folder) == before


def test_an_own_name_that_is_another_source(folder, capfd):
    """Of several sources each gets a file of its own, whose name is known once they are open."""
    shutil.copy("clip.mp4", "x-clip.mp4")
    before = contents(folder)
    line = ["--source", "clip.mp4", "--source", "x-clip.mp4", "--output", "x.mp4", "--quiet"]
    assert invoke("kanoclip-run", "run", line) == 1
    assert "would overwrite the source x-clip.mp4" in capfd.readouterr().err
    assert contents(folder) == before


def test_other_outputs_are_written(folder):
    line = "--source clip.mp4 --output new.mp4 --jsonl clip.mp4.jsonl --snapshots snapshots --quiet --max-frames 2"
    assert invoke("kanoclip-run", "run", line.split()) == 0
    assert len(Path("clip.mp4.jsonl").read_text().splitlines()) == 2
    assert Path("clip.mp4").read_bytes() == CLIP.read_bytes()
