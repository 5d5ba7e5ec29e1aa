import dataclasses
import subprocess
import sys

from kanoclip.train.data.registry import open_dataset
from kanoclip.train.knowledge.base import load_knowledge
from kanoclip.train.nano.tree import HELD_OUT, KNOWLEDGE, split, write_tree


def test_a_tree_is_a_dataset_with_masks_and_a_knowledge_base_for_every_class(tmp_path):
    recipe = dataclasses.replace(split(64, held_out=True), materials=("leather",), things=("gear",), anomalous=0.5)
    write_tree(tmp_path, recipe, 5, 6, 8, None)
    dataset = open_dataset("mvtec", tmp_path)
    assert not dataset.problems
    assert {category.name for category in dataset.categories} == {"leather", "gear_wheel", "object"}
    samples = [sample for category in dataset.categories for sample in category.samples]
    assert len(samples) == 6 + 6 + 8 and {sample.anomalous for sample in samples} == {True, False}
    assert all((sample.mask is not None) == sample.anomalous for sample in samples)
    base = load_knowledge(tmp_path / KNOWLEDGE)
    for category in dataset.categories:
        entry = base.entries[("mvtec", category.name)]
        assert len(entry.descriptions) == 5 and all(entry.class_name in text for text in entry.descriptions)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    recipe = dataclasses.replace(split(64, held_out=False), materials=("wood",), things=())
    for name in ("one", "two"):
        write_tree(tmp_path / name, recipe, 5, 3, 3, None)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 7
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)


def test_held_out_classes_are_in_no_other_tree():
    learnt, others = split(64, held_out=False), split(64, held_out=True)
    assert set(others.materials) | set(others.things) == set(HELD_OUT)
    assert not set(HELD_OUT) & {*learnt.materials, *learnt.things}
    assert len(learnt.materials) > 10 and len(learnt.things) > 5


def test_the_command(tmp_path):
    command = [sys.executable, "-m", "kanoclip.train.nano.tree", "--held-out", "--image-size", "64", "--each", "1"]
    subprocess.run([*command, "--mixed", "1", "--output", str(tmp_path)], check=True)
    assert len(open_dataset("mvtec", tmp_path).categories) == len(HELD_OUT) + 1
