"""The medical datasets in each form that people download."""

from __future__ import annotations

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.registry import open_dataset


@pytest.mark.parametrize(("name", "words"), [("brainmri", "brain MRI"), ("br35h", "brain MRI scan")])
def test_yes_and_no(tmp_path, draw, summary, name, words):
    draw.image(tmp_path / "yes" / "Y1.jpg")
    draw.image(tmp_path / "no" / "1 no.jpeg")
    draw.image(tmp_path / "pred" / "pred0.jpg")
    draw.image(tmp_path / "brain_tumor_dataset" / "yes" / "Y1.jpg")  # Kaggle's archive has the same twice
    draw.image(tmp_path / "brain_tumor_dataset" / "no" / "1 no.jpeg")
    dataset = open_dataset(name, tmp_path)
    assert summary(dataset) == {
        "brain": [("no/1 no.jpeg", False, None, "good", "test"), ("yes/Y1.jpg", True, None, "yes", "test")]
    }
    assert dataset.categories[0].class_name == words
    assert not dataset.pixel_labels and dataset.problems == ()


BMAD = [("liverct", "Liver_AD", "liver"), ("resc", "Retina_RESC_AD", "retina"), ("brainmri", "Brain_AD", "brain")]


@pytest.mark.parametrize(("name", "folder", "category"), BMAD)
@pytest.mark.parametrize(
    "places",
    [
        ("train/good", "test/good/img", "test/Ungood/img", "test/Ungood/label"),
        ("train/good/img", "test/good/img", "test/ungood/img", "test/ungood/anomaly_mask"),
        ("train/good", "test/img/good", "test/img/Ungood", "test/label/Ungood"),
        ("Train/train/good", "Test/test/good", "Test/test/Ungood", "Test/test_label/Ungood"),
    ],
    ids=["BMAD", "MVFA", "liver archive", "RESC archive"],
)
def test_bmad(tmp_path, draw, summary, name, folder, category, places):
    root = tmp_path / folder
    train, good, bad, masks = places
    draw.image(root / train / "t.png")
    draw.image(root / good / "a.png")
    draw.image(root / bad / "b.png")
    draw.mask(root / masks / "b.png")
    draw.mask(
        root / masks.replace("ngood", "good").replace("Ugood", "good").replace("ugood", "good") / "a.png", value=0
    )
    draw.image(root / "valid" / "good" / "img" / "v.png")
    dataset = open_dataset(name, root, split="all")
    rows = summary(dataset)[category]
    assert sorted(rows) == sorted(
        [
            (f"{good}/a.png", False, None, "good", "test"),
            (f"{bad}/b.png", True, f"{masks}/b.png", "Ungood", "test"),
            (f"{train}/t.png", False, None, "good", "train"),
        ]
    )
    assert dataset.pixel_labels and dataset.problems == ()


def test_bmad_s_archives_are_told_apart_by_their_names(tmp_path, draw):
    """MVFA's data/ folder, and the further folder inside of BMAD's archives."""
    for folder, inner in (("Brain_AD", "BraTS2021_slice"), ("Liver_AD", "hist_DIY"), ("Retina_RESC_AD", "RESC")):
        for kind in ("good", "Ungood"):
            draw.image(tmp_path / folder / inner / "test" / kind / "img" / f"{folder}.png")
        draw.mask(tmp_path / folder / inner / "test" / "Ungood" / "label" / f"{folder}.png")
    for name, folder, _ in BMAD:
        for root in (tmp_path, tmp_path / folder):
            dataset = open_dataset(name, root)
            assert {sample.image.stem for sample in dataset.categories[0].samples} == {folder}


def test_bmad_missing_masks(tmp_path, draw, problems):
    for name in ("a.png", "b.png"):
        draw.image(tmp_path / "test" / "Ungood" / "img" / name)
    draw.image(tmp_path / "test" / "good" / "img" / "a.png")
    draw.mask(tmp_path / "test" / "Ungood" / "label" / "a.png")
    draw.mask(tmp_path / "test" / "Ungood" / "label" / "c.png")
    dataset = open_dataset("liverct", tmp_path)
    assert problems(dataset) == [
        ("test/Ungood/img/b.png", "no mask"),
        ("test/Ungood/label/c.png", "mask without an image"),
    ]


@pytest.mark.parametrize("inner", ["images", "."])
@pytest.mark.parametrize("outer", [".", "COVID-19_Radiography_Dataset", "archive/COVID-19_Radiography_Dataset"])
def test_covid_never_takes_lungs_for_anomalies(tmp_path, draw, inner, outer):
    root = tmp_path / outer
    for disease, name in (("COVID", "COVID"), ("Normal", "NORMAL"), ("Viral Pneumonia", "x"), ("Lung_Opacity", "y")):
        draw.image(root / disease / inner / f"{name}-1.png")
        if inner == "images":
            draw.mask(root / disease / "masks" / f"{name}-1.png")
    dataset = open_dataset("covid19", tmp_path)
    samples = dataset.categories[0].samples
    assert [(sample.image.name, sample.anomalous, sample.mask) for sample in samples] == [
        ("COVID-1.png", True, None),
        ("NORMAL-1.png", False, None),
    ]
    assert not dataset.pixel_labels and dataset.categories[0].name == "chest" and dataset.problems == ()


@pytest.fixture
def head_ct(tmp_path, draw):
    for number in range(3):
        draw.image(tmp_path / "head_ct" / "head_ct" / f"{number:03}.png")
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,1\n1,0\n2,1\n")
    return tmp_path


def test_head_ct(head_ct, summary):
    dataset = open_dataset("headct", head_ct)
    assert summary(dataset) == {
        "head": [
            ("head_ct/head_ct/000.png", True, None, "hemorrhage", "test"),
            ("head_ct/head_ct/001.png", False, None, "good", "test"),
            ("head_ct/head_ct/002.png", True, None, "hemorrhage", "test"),
        ]
    }
    assert not dataset.pixel_labels and dataset.problems == ()


def test_head_ct_images_and_list_that_differ(head_ct, draw, problems):
    (head_ct / "head_ct" / "head_ct" / "001.png").unlink()
    draw.image(head_ct / "head_ct" / "head_ct" / "077.png")
    dataset = open_dataset("headct", head_ct)
    assert problems(dataset) == [
        ("head_ct/head_ct/001.png", "listed in labels.csv, but missing"),
        ("head_ct/head_ct/077.png", "left out, labels.csv does not list it"),
    ]
    assert len(dataset.categories[0].samples) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1"),
        ("name,label\n0,1\n", "line 1"),
        ("id, hemorrhage\n0,1\nx,0\n", "line 3"),
        ("id, hemorrhage\n0,2\n", "line 2"),
        ("id, hemorrhage\n0\n", "line 2"),
    ],
)
def test_head_ct_broken_list(head_ct, text, words):
    (head_ct / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        open_dataset("headct", head_ct)


def test_head_ct_as_anomalyclip_has_it(tmp_path, draw):
    draw.image(tmp_path / "HeadCT_anomaly_detection" / "brain" / "test" / "good" / "0.png")
    draw.image(tmp_path / "HeadCT_anomaly_detection" / "brain" / "test" / "defect" / "1.png")
    for root in (tmp_path, tmp_path / "HeadCT_anomaly_detection"):
        dataset = open_dataset("headct", root)
        assert [category.name for category in dataset.categories] == ["head"]
        assert not dataset.pixel_labels and dataset.problems == ()
