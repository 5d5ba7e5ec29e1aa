"""What all layouts have in common."""

from __future__ import annotations

import random
import shutil

import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.layouts.names import CLASS_NAMES, words
from kanoclip.train.data.registry import DATASETS, dataset_names, open_dataset
from kanoclip.train.knowledge.base import shipped_knowledge


def refused(*arguments, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_names_list_the_known_ones(tmp_path, draw):
    draw.category(tmp_path / "nut")
    assert all(name in refused("mvtek", tmp_path) for name in DATASETS)
    message = refused("mvtec", tmp_path, categories=["nut", "bolt"])
    assert "'bolt'" in message and "nut" in message


@pytest.mark.parametrize("name", list(DATASETS))
def test_a_root_that_is_no_such_dataset(tmp_path, name):
    message = refused(name, tmp_path)
    assert str(tmp_path) in message and DATASETS[name].forms[0].shape in message and "check the path" in message
    file = tmp_path / "file"
    file.write_text("")
    for root in (tmp_path / "nowhere", file):
        assert f"{root} is not a folder" in refused(name, root)
        with pytest.raises(DataError, match="is not a folder"):
            dataset_names(root)


def test_another_layout_that_fits_is_named(tmp_path, draw):
    draw.category(tmp_path / "nut")
    assert "it looks like mvtec" in refused("visa", tmp_path)
    shutil.rmtree(tmp_path / "nut")
    draw.category(tmp_path / "candle")
    assert "it looks like visa" in refused("folder", tmp_path)
    assert "CATEGORY is one of 01, 02, 03" in refused("btad", tmp_path)


def test_a_split_without_images(tmp_path, draw):
    draw.image(tmp_path / "yes" / "0.png")
    (tmp_path / "no").mkdir()
    assert "no image of the split train: it has images of the split test" in refused(
        "brainmri", tmp_path, split="train"
    )
    (tmp_path / "yes" / "0.png").unlink()
    assert "has no image" in refused("brainmri", tmp_path, split="all")


def test_categories_are_chosen_with_their_problems(tmp_path, draw):
    for name in ("bolt", "nut"):
        folder = draw.category(tmp_path / name)
        (folder / "ground_truth" / "crack" / "000_mask.png").unlink()
    assert len(open_dataset("mvtec", tmp_path).problems) == 2
    dataset = open_dataset("mvtec", tmp_path, categories=["nut", "nut"])
    assert [category.name for category in dataset.categories] == ["nut"]
    assert [problem.category for problem in dataset.problems] == ["nut"]


def test_the_order_does_not_depend_on_the_disk_s(tmp_path, draw):
    paths = [f"{kind}/{number}.png" for kind in ("good", "hole", "crack") for number in range(5)]
    results = []
    for seed in range(3):
        root = tmp_path / str(seed)
        random.Random(seed).shuffle(paths)
        for path in paths:
            draw.image(root / "nut" / "test" / path)
            draw.mask(root / "nut" / "ground_truth" / path)
        dataset = open_dataset("mvtec", root)
        samples = dataset.categories[0].samples
        assert [sample.image for sample in samples] == sorted(sample.image for sample in samples)
        results.append([(sample.image.relative_to(root), sample.mask and sample.mask.name) for sample in samples])
    assert results[0] == results[1] == results[2]


def test_the_shipped_knowledge_names_the_same_classes():
    entries = shipped_knowledge().entries
    assert {key: entry.class_name for key, entry in entries.items()} == {
        (dataset, category): name for dataset, names in CLASS_NAMES.items() for category, name in names.items()
    }


@pytest.mark.parametrize(
    ("category", "wanted"),
    [("metal_nut", "metal nut"), ("pcb3", "printed circuit board"), ("gear__wheel_", "gear wheel"), ("___", "___")],
)
def test_words(category, wanted):
    assert words(category) == wanted
