"""VisA's download, with its csv in every state."""

from __future__ import annotations

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.masks import read_mask
from kanoclip.train.data.registry import open_dataset

HEADER = "object,split,label,image,mask"


def rows(name):
    images = f"{name}/Data/Images"
    return [
        f"{name},train,normal,{images}/Normal/0000.JPG,",
        f"{name},test,normal,{images}/Normal/0001.JPG,",
        f"{name},test,anomaly,{images}/Anomaly/000.JPG,{name}/Data/Masks/Anomaly/000.png",
    ]


@pytest.fixture
def visa(tmp_path, draw):
    for name in ("pcb1", "candle"):
        for image in ("Normal/0000.JPG", "Normal/0001.JPG", "Anomaly/000.JPG"):
            draw.image(tmp_path / name / "Data" / "Images" / image)
        draw.mask(tmp_path / name / "Data" / "Masks" / "Anomaly" / "000.png", value=2)
    write_csv(tmp_path, [HEADER, *rows("candle"), *rows("cashew"), *rows("pcb1")])
    return tmp_path


def write_csv(root, lines):
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")


def test_the_split_is_the_csv_s(visa, summary):
    dataset = open_dataset("visa", visa)
    assert summary(dataset)["pcb1"] == [
        ("pcb1/Data/Images/Anomaly/000.JPG", True, "pcb1/Data/Masks/Anomaly/000.png", "anomaly", "test"),
        ("pcb1/Data/Images/Normal/0001.JPG", False, None, "good", "test"),
    ]
    assert [category.name for category in dataset.categories] == ["candle", "pcb1"]  # cashew was not downloaded
    assert dataset.categories[1].class_name == "printed circuit board"
    assert dataset.problems == () and dataset.pixel_labels
    assert [len(category.samples) for category in open_dataset("visa", visa, split="train").categories] == [1, 1]


def test_label_indices_are_anomalous(visa, draw):
    sample = open_dataset("visa", visa).categories[0].samples[0]
    same = draw.mask(visa / "255.png")
    assert (read_mask(sample.mask, (24, 32)) == read_mask(same, (24, 32))).all()


def test_what_csv_and_folders_do_not_agree_on(visa, draw, problems):
    (visa / "pcb1/Data/Images/Normal/0001.JPG").unlink()
    (visa / "pcb1/Data/Masks/Anomaly/000.png").unlink()
    draw.image(visa / "candle/Data/Images/Anomaly/001.JPG")
    draw.mask(visa / "candle/Data/Masks/Anomaly/002.png")
    dataset = open_dataset("visa", visa)
    assert sorted(problems(dataset)) == [
        ("candle/Data/Images/Anomaly/001.JPG", "not listed in 1cls.csv"),
        ("candle/Data/Masks/Anomaly/002.png", "mask without an image"),
        ("pcb1/Data/Images/Anomaly/000.JPG", f"no mask: {visa}/pcb1/Data/Masks/Anomaly/000.png is missing"),
        ("pcb1/Data/Images/Normal/0001.JPG", "listed in 1cls.csv, but missing"),
    ]
    (sample,) = dataset.categories[1].samples
    assert sample.anomalous and sample.mask is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "line 1: the columns are not object"),
        (["image,label", "a,b"], "line 1: the columns are not object"),
        ([HEADER, "candle,test,normal"], "line 2: 3 fields, not 5"),
        ([HEADER, *rows("candle"), "candle,valid,normal,a.JPG,"], "line 5: split 'valid' and label 'normal'"),
        ([HEADER, "candle,test,broken,a.JPG,"], "line 2: split 'test' and label 'broken'"),
        ([HEADER, "candle,test,normal,../secret.JPG,"], "leaves"),
        ([HEADER, "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,/etc/passwd"], "leaves"),
        ([HEADER, 'candle,test,normal,"a.JPG'], "no csv file"),
    ],
)
def test_a_broken_csv_is_named_with_its_line(visa, lines, words):
    write_csv(visa, lines)
    with pytest.raises(DataError) as caught:
        open_dataset("visa", visa)
    assert words in str(caught.value) and str(visa / "split_csv" / "1cls.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_its_csv_there_is_no_split(visa):
    (visa / "split_csv" / "1cls.csv").unlink()
    with pytest.raises(DataError, match=r"1cls\.csv \(No such file"):
        open_dataset("visa", visa)


def test_a_csv_that_is_no_text(visa):
    (visa / "split_csv" / "1cls.csv").write_bytes(b"\xff\xfe\x00b")
    with pytest.raises(DataError, match="not UTF-8"):
        open_dataset("visa", visa)
