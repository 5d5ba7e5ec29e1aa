"""meta.json as AnomalyCLIP's scripts write it, and as nobody should."""

from __future__ import annotations

import json

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.registry import open_dataset


def entry(image, mask="", anomaly=0, kind="good", **more):
    return {"img_path": image, "mask_path": mask, "cls_name": "nut", "specie_name": kind, "anomaly": anomaly, **more}


@pytest.fixture
def root(tmp_path, draw):
    draw.category(tmp_path / "nut", good=1, bad=2)
    write(tmp_path, {"train": {"nut": [entry("nut/train/good/000.png")]}, "test": {"nut": listed()}})
    return tmp_path


def listed():
    mask = "nut/ground_truth/crack/{:03}_mask.png"
    cracks = [entry(f"nut/test/crack/{i:03}.png", mask.format(i), 1, "crack") for i in (1, 0)]
    return [entry("nut/test/good/000.png"), *cracks]


def write(root, content):
    (root / "meta.json").write_text(content if isinstance(content, str) else json.dumps(content))


def refused(root):
    with pytest.raises(DataError) as caught:
        open_dataset("meta", root)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_says_the_same_as_the_tree(root, summary):
    for split in ("train", "test", "all"):
        meta, tree = open_dataset("meta", root, split=split), open_dataset("mvtec", root, split=split)
        assert summary(meta) == summary(tree)
        assert meta.problems == () and meta.pixel_labels


def test_dagm_s_capitals_and_brain_s_absolute_paths(root, summary):
    rows = [{**row, "img_path": f"{root}/{row['img_path']}"} for row in listed()]
    write(root, {"Train": {}, "Test": {"nut": rows, "pcb1": []}})
    dataset = open_dataset("meta", root)
    assert summary(dataset)["nut"] == summary(open_dataset("mvtec", root))["nut"]
    assert dataset.categories[1].class_name == "printed circuit board" and dataset.categories[1].samples == ()


def test_windows_paths(root):
    write(root, {"test": {"nut": [{**row, "img_path": row["img_path"].replace("/", "\\")} for row in listed()]}})
    assert len(open_dataset("meta", root).categories[0].samples) == 3


@pytest.mark.parametrize("mask", ["", None, "nut", "."])
def test_no_mask_is_not_an_empty_mask(root, mask):
    if mask == ".":
        mask = str(root / "nut" / "..") + "/nut"
    write(root, {"test": {"nut": [entry("nut/test/crack/000.png", mask, 1, ""), entry("nut/test/good/000.png")]}})
    dataset = open_dataset("meta", root)
    sample = dataset.categories[0].samples[0]
    assert (sample.anomalous, sample.mask, sample.defect) == (True, None, "anomaly")
    assert not dataset.pixel_labels and dataset.problems == ()


def test_what_is_listed_but_missing(root, problems):
    (root / "nut/test/good/000.png").unlink()
    (root / "nut/ground_truth/crack/000_mask.png").unlink()
    write(root, {"test": {"nut": [*listed(), entry("nut/train/good/000.png", anomaly=1), listed()[1]]}})
    dataset = open_dataset("meta", root)
    assert sorted(problems(dataset)) == [
        ("nut/test/crack/000.png", f"no mask: {root}/nut/ground_truth/crack/000_mask.png is missing"),
        ("nut/test/crack/001.png", "listed twice in meta.json"),
        ("nut/test/good/000.png", "listed in meta.json, but missing"),
        ("nut/train/good/000.png", "no mask"),
    ]
    assert [sample.mask is None for sample in dataset.categories[0].samples] == [True, False, True]


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "nut/../../secret.png", "..\\secret.png", ".", "a\0b", "nut/.."]
)
@pytest.mark.parametrize("field", ["img_path", "mask_path"])
def test_a_path_that_leaves_the_root_is_refused(root, draw, path, field):
    draw.image(root.parent / "secret.png")
    rows = listed()
    rows[1][field] = path
    write(root, {"test": {"nut": rows}})
    message = refused(root)
    assert "leaves" in message and "test.nut[1]" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([], "the file is not an object"),
        ({"valid": {}}, '"train" or "test"'),
        ({"test": []}, "test is not an object"),
        ({"test": {"nut": {}}}, "test.nut is not a list"),
        ({"test": {"a\nb": []}}, "is not the name of a class"),
        ({"test": {"nut": ["a.png"]}}, "test.nut[0] is not an object"),
        ({"test": {"nut": [{"anomaly": 0}]}}, "test.nut[0].img_path is not a text"),
        ({"test": {"nut": [entry("")]}}, "test.nut[0].img_path is not the path of an image"),
        ({"test": {"nut": [entry("a.png", anomaly=2)]}}, "test.nut[0].anomaly is not 0 or 1"),
        ({"test": {"nut": [entry("a.png", anomaly="0")]}}, "test.nut[0].anomaly is not 0 or 1"),
        ({"test": {"nut": [entry("a.png", anomaly=1.0)]}}, "test.nut[0].anomaly is not 0 or 1"),
        ({"test": {"nut": [entry("a.png", mask=3)]}}, "test.nut[0].mask_path is not a text"),
        ({"test": {"nut": [entry("a.png", kind=["x"])]}}, "test.nut[0].specie_name is not a text"),
    ],
)
def test_a_malformed_file_is_named_with_the_place(root, content, words):
    write(root, content)
    assert words in refused(root)
