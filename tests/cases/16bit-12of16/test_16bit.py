"""Images of a camera with 10 or 12 bits score as the same ones with 8, wherever they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.sources.files import decode
from kanoclip.runtime.sources.files.images import ImageSource, read_image
from kanoclip.train.data.images import read_image as read_for_training

HERE = Path(__file__).parent


@pytest.mark.parametrize("read", [read_image, read_for_training])
def test_each_looks_as_the_one_of_8_bits(read):
    right = read(HERE / "ref8.png").astype(int)
    for path in sorted({*HERE.glob("*.png"), *HERE.glob("*.tif")}):
        assert abs(read(path).astype(int) - right).max() <= 1, path


@pytest.fixture(autouse=True)
def fresh():
    decode._depths.clear()
    decode._warned.clear()


def test_each_scores_as_the_one_of_8_bits(toy_bundle, tmp_path, capsys):
    lines = tmp_path / "lines.jsonl"
    given = ["--bundle", str(toy_bundle), "--backend", "onnxruntime", "--source", str(HERE), "--jsonl", str(lines)]
    assert invoke("kanoclip-run", "run", given) == 0
    found = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(found) == len(ImageSource.from_folder(HERE).paths) == 4
    assert max(one["score"] for one in found) - min(one["score"] for one in found) < 0.01
    assert capsys.readouterr().err.count("taken as one of 10 bits") == 1
