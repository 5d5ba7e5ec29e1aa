"""`kanoclip-data` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from .helpers import in_process

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
DATASETS = ["mvtec", "visa", "mpdd", "btad", "sdd", "dagm", "brainmri", "liverct", "resc", "br35h"]
DATASETS += ["covid19", "headct", "meta", "folder"]


def data(*arguments):
    """In this process; `started` is the installed command."""
    return in_process("kanoclip-data", *arguments)


def started(*arguments):
    command = [str(part) for part in (BIN / "kanoclip-data", *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def refused(done, code, *words):
    """One line on standard error that holds the words."""
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert str(word) in done.stderr, done.stderr


@pytest.fixture
def root(tmp_path):
    """The example photographs as a category of the MVTec tree."""
    shutil.copytree(EXAMPLES, tmp_path / "data" / "hazelnut_toy")
    return tmp_path / "data"


@pytest.mark.parametrize("options", [(), ("--deep",), ("--dataset", "mvtec", "--category", "hazelnut_toy")])
def test_a_sound_folder(root, options):
    done = data("check", root, *options)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("│ "))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["hazelnut_toy", "6", "17", "17", "colour 17", "512 x 512", "0"]
    assert ("--deep decodes" in done.stdout) != ("--deep" in options)
    assert done.stderr == ""


def test_json_for_programs(root):
    (root / "hazelnut_toy" / "ground_truth" / "colour" / "03_mask.png").unlink()
    mask = root / "hazelnut_toy" / "ground_truth" / "colour" / "04_mask.png"
    cv2.imwrite(str(mask), np.zeros((10, 20), np.uint8))
    done = started("check", root, "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["dataset"] == "mvtec" and report["root"] == str(root)
    assert report["complete"] is False and report["pixel_labels"] is True and report["deep"] is False
    assert report["categories"] == {
        "hazelnut_toy": {
            "class_name": "hazelnut toy",
            "train": 0,
            "test": 23,
            "good": 6,
            "anomalous": 17,
            "masks": 16,
            "defects": {"colour": 17},
            "sizes": [{"width": 512, "height": 512, "pictures": 23}],
        }
    }
    assert [(Path(one["path"]).name, one["loses_data"]) for one in report["problems"]] == [
        ("03.jpg", True),
        ("04_mask.png", True),
    ]
    assert "20 x 10" in report["problems"][1]["reason"]


def test_every_problem_is_listed_with_its_path(root):
    folder = root / "hazelnut_toy"
    (folder / "test" / "good" / "04.jpg").write_bytes(b"no image")
    (folder / "ground_truth" / "colour" / "00_mask.png").rename(folder / "ground_truth" / "colour" / "zz_mask.png")
    done = data("check", root)
    assert done.returncode == 1
    for name, reason in (
        ("test/good/04.jpg", "unreadable image"),
        ("test/colour/00.jpg", "no mask"),
        ("ground_truth/colour/zz_mask.png", "mask without an image"),
    ):
        assert any(str(folder / name) in line and reason in line for line in done.stdout.splitlines()), name


def test_a_damaged_image_needs_deep(root):
    path = root / "hazelnut_toy" / "test" / "colour" / "05.jpg"
    path.write_bytes(path.read_bytes()[:-500])
    assert data("check", root).returncode == 0
    done = data("check", root, "--deep")
    assert done.returncode == 1 and f"{path}: unreadable image: the file is cut short" in done.stdout


def test_names_that_cannot_be_printed(root):
    good = root / "hazelnut_toy" / "test" / "good"
    for name in (b"line\nbreak.png", b"\xff\xfe.png", b"[red]markup[nonsense].png", b"\x1b[2Jclear.png"):
        Path(os.fsdecode(os.fsencode(good) + b"/" + name)).write_bytes(b"x")
    done = started("check", root)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "line?break.png" in done.stdout and "??.png" in done.stdout and "\x1b" not in done.stdout
    assert "[red]markup[nonsense].png" in done.stdout
    assert len(json.loads(data("check", root, "--json").stdout)["problems"]) == 4


def test_bad_input(root, tmp_path):
    refused(data("check", tmp_path / "nowhere"), 1, tmp_path / "nowhere", "not a folder")
    (tmp_path / "empty").mkdir()
    refused(data("check", tmp_path / "empty"), 1, tmp_path / "empty", "kanoclip-data list")
    refused(data("check", root, "--dataset", "imagenet"), 2, "imagenet", "mvtec", "headct")
    refused(data("check", root, "--dataset", "visa"), 1, "1cls.csv", "it looks like mvtec")
    refused(data("check", root, "--category", "almond"), 1, "almond", "hazelnut_toy")
    refused(data("check"), 2, "ROOT")
    (root / "meta.json").write_text('{"test": {"nut": [{"img_path": "../x.png", "anomaly": 0}]}}')
    refused(data("check", root, "--dataset", "meta"), 1, root / "meta.json", "test.nut[0]", "../x.png")


def test_a_folder_that_may_be_two_datasets(tmp_path):
    for kind in ("yes", "no"):
        (tmp_path / "x" / kind).mkdir(parents=True)
        shutil.copy(EXAMPLES / "test" / "good" / "04.jpg", tmp_path / "x" / kind)
    refused(data("check", tmp_path / "x"), 1, "brainmri, br35h", "--dataset")
    done = data("check", tmp_path / "x", "--dataset", "br35h")
    assert done.returncode == 0
    assert f"br35h: {tmp_path / 'x'}\n" in done.stdout and "pixel-level metrics are undefined" in done.stdout


def test_list(tmp_path):
    done = started("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    for name in DATASETS:
        assert any(line.startswith(f"{name}  ") for line in lines), name
    listed = json.loads(data("list", "--json").stdout)
    assert list(listed) == DATASETS
    assert listed["btad"]["categories"]["02"] == "wooden surface"
    assert [name for name in DATASETS if not listed[name]["pixel_labels"]] == ["br35h", "covid19", "headct"]


def test_help_and_no_torch(root):
    done = data()
    assert done.returncode == 0 and "check" in done.stdout and "list" in done.stdout
    assert "kanoclip-data check ~/data/visa" in data("check", "--help").stdout
    code = (
        "import sys; from kanoclip.runtime.cli.main import invoke; "
        f"code = invoke('kanoclip-data', 'data', ['check', {str(root)!r}, '--deep']); "
        "print(sorted({'torch', 'PIL', 'sklearn'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
