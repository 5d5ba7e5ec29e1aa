"""A suite file, good and bad: one line that names the file, what is wrong and what would do."""

from __future__ import annotations

import pytest

from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.evaluation.paper import DATASETS
from kanoclip.train.evaluation.suite.file import read_suite

GOOD = """
backbone = "random-tiny"
weights = "none"
sizes = [48, 64, 48]
baselines = ["clip", "winclip"]
sigma = 2
[checkpoints]
default = "a.safetensors"
mvtec = "b.safetensors"
[roots]
mvtec = "mvtec"
visa = "visa"
[ablation]
visa = "rows"
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("mvtec", "visa", "rows"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    return tmp_path


def write(folder, text):
    (folder / "paper.toml").write_text(text)
    return folder / "paper.toml"


def test_paths_start_at_the_file_and_missing_datasets_are_listed(folder):
    suite = read_suite(write(folder, GOOD))
    assert suite.roots == {"mvtec": folder / "mvtec", "visa": folder / "visa"}
    assert (
        suite.checkpoint("mvtec") == folder / "b.safetensors" and suite.checkpoint("visa") == folder / "a.safetensors"
    )
    assert (suite.sizes, suite.baselines, suite.sigma, suite.weights) == ((48, 64), ("clip", "winclip"), 2, "none")
    assert len(DATASETS) == 12 and suite.missing == tuple(d for d in DATASETS if d not in ("mvtec", "visa"))
    assert suite.ablation == {"visa": folder / "rows"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('visa = "visa"', 'vissa = "visa"', "no 'vissa': there are mvtec, visa"),
        ('visa = "visa"', 'visa = "gone"', "roots.visa is .*gone, which is no folder"),
        ('mvtec = "mvtec"\nvisa = "visa"\n', "", "names no dataset"),
        ('"a.safetensors"', '"c.safetensors"', "checkpoints.default is .*c.safetensors, which is no file"),
        ('visa = "rows"', 'mpdd = "rows"', "no 'mpdd': there are mvtec, visa"),
        ('visa = "rows"', 'visa = "none"', "ablation.visa is .*none, which is no folder"),
        ('"winclip"', '"winnclip"', "baselines is a list of any of clip, clip-ac, winclip"),
        ("sizes = [48, 64, 48]", 'sizes = ["a"]', "sizes is a list of whole numbers"),
        ("sizes = [48, 64, 48]", "sizes = [true]", "sizes is a list of whole numbers"),
        ("sigma = 2", "sigma = 0", "sigma is a number"),
        ("sigma = 2", "sigmma = 2", "unknown key 'sigmma': there are backbone"),
        ('backbone = "random-tiny"\n', "", "baselines and ablation need backbone"),
        ("[roots]", "[roots", "TOML"),
        ('mvtec = "mvtec"', "mvtec = 3", "roots.mvtec is no path"),
        ('visa = "visa"', 'visa = "visa/../mvtec"', "roots.mvtec and roots.visa are the same folder"),
        ('visa = "visa"', 'mvtec = "visa"', "mvtec is there twice"),
    ],
)
def test_a_bad_file_is_one_line(folder, old, new, expected):
    assert old in GOOD
    with pytest.raises(KanoclipError, match=expected) as caught:
        read_suite(write(folder, GOOD.replace(old, new)))
    message = str(caught.value)
    assert "\n" not in message and str(folder / "paper.toml") in message


def test_a_file_that_measures_nothing_and_one_that_is_not_there(folder):
    with pytest.raises(KanoclipError, match="nothing to measure"):
        read_suite(write(folder, '[roots]\nmvtec = "mvtec"\n'))
    with pytest.raises(KanoclipError, match=r"nowhere\.toml"):
        read_suite(folder / "nowhere.toml")
