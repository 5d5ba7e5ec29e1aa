"""KolektorSDD and DAGM, where the masks are the labels: a lost one must not make a defect normal."""

from __future__ import annotations

import pytest

from kanoclip.train.data.registry import open_dataset


@pytest.fixture
def kolektor(tmp_path, draw):
    for folder in ("kos01", "kos02"):
        for part, value in (("Part0", 0), ("Part1", 255), ("Part2", 1)):
            draw.image(tmp_path / folder / f"{part}.jpg", (40, 16))
            draw.mask(tmp_path / folder / f"{part}_label.bmp", (40, 16), value)
    return tmp_path


def test_kolektor_labels_are_in_its_masks(kolektor, summary):
    dataset = open_dataset("sdd", kolektor)
    assert summary(dataset)["electrical_commutator"][:3] == [
        ("kos01/Part0.jpg", False, None, "good", "test"),
        ("kos01/Part1.jpg", True, "kos01/Part1_label.bmp", "defect", "test"),
        ("kos01/Part2.jpg", True, "kos01/Part2_label.bmp", "defect", "test"),
    ]
    assert dataset.categories[0].class_name == "electrical commutator" and len(dataset.categories[0].samples) == 6
    assert dataset.problems == () and dataset.pixel_labels


def test_kolektor_image_without_a_label_is_left_out(kolektor, draw, problems):
    (kolektor / "kos01" / "Part1_label.bmp").unlink()
    (kolektor / "kos02" / "Part0_label.bmp").write_bytes(b"damaged")
    draw.mask(kolektor / "kos02" / "Part9_label.bmp")
    dataset = open_dataset("sdd", kolektor)
    assert len(dataset.categories[0].samples) == 4
    left_out = "left out, its mask says whether it is defective"
    assert problems(dataset) == [
        ("kos01/Part1.jpg", f"{left_out}: there is none"),
        ("kos02/Part0_label.bmp", f"{left_out}: not an image that OpenCV can decode"),
        ("kos02/Part9_label.bmp", "mask without an image"),
    ]


def test_kolektor_as_anomalyclip_has_it(tmp_path, draw, summary):
    folder = draw.category(tmp_path / "SDD" / "electrical commutators", good=1, bad=1, defect="defect")
    for root in (tmp_path / "SDD", folder, tmp_path):
        dataset = open_dataset("sdd", root)
        assert list(summary(dataset)) == ["electrical_commutator"]
        assert [sample.mask is None for sample in dataset.categories[0].samples] == [False, True]


@pytest.fixture
def dagm(tmp_path, draw):
    for name in ("Class1", "Class10"):
        for split in ("Train", "Test"):
            part = tmp_path / name / split
            for number in ("0001", "0002", "0003"):
                draw.image(part / f"{number}.PNG")
            draw.mask(part / "Label" / "0002_label.PNG")
            (part / "Label" / "Labels.txt").write_text(
                "1\n1\t0\t0001.PNG\t0\t0\n2\t1\t0002.PNG\t0\t0002_label.PNG\n3\t0\t0003.PNG\t0\t0\n"
            )
    return tmp_path


def test_dagm_has_its_own_split(dagm, summary):
    dataset = open_dataset("dagm", dagm)
    assert summary(dataset)["Class10"] == [
        ("Class10/Test/0001.PNG", False, None, "good", "test"),
        ("Class10/Test/0002.PNG", True, "Class10/Test/Label/0002_label.PNG", "defect", "test"),
        ("Class10/Test/0003.PNG", False, None, "good", "test"),
    ]
    assert dataset.categories[0].class_name == "textured surface" and dataset.problems == ()
    assert len(open_dataset("dagm", dagm, split="all").categories[0].samples) == 6


def test_dagm_classes_count_up(tmp_path, draw):
    for number in (10, 2, 1):
        draw.image(tmp_path / f"Class{number}" / "Test" / "0001.PNG")
        draw.mask(tmp_path / f"Class{number}" / "Test" / "Label" / "0001_label.PNG")
    assert [category.name for category in open_dataset("dagm", tmp_path).categories] == ["Class1", "Class2", "Class10"]


def test_dagm_lost_mask_does_not_make_a_defect_normal(dagm, problems):
    (dagm / "Class1" / "Test" / "Label" / "0002_label.PNG").unlink()
    dataset = open_dataset("dagm", dagm, categories=["Class1"])
    assert problems(dataset) == [("Class1/Test/0002.PNG", "no mask")]
    assert [(sample.anomalous, sample.mask) for sample in dataset.categories[0].samples][1] == (True, None)


def test_dagm_without_labels_nothing_is_called_normal(dagm, problems):
    label = dagm / "Class1" / "Test" / "Label"
    for file in label.iterdir():
        file.unlink()
    label.rmdir()
    dataset = open_dataset("dagm", dagm)
    assert problems(dataset) == [
        ("Class1/Test/Label", "no labels: this folder is missing, so the 3 images are left out")
    ]
    assert [len(category.samples) for category in dataset.categories] == [0, 3]
