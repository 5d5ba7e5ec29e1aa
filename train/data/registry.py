"""The datasets by name, and the one function that opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.sources.files.folders import natural_key
from kanoclip.train.data.files import is_folder
from kanoclip.train.data.layouts.find import locate, recognise
from kanoclip.train.data.layouts.folder import plain_folder
from kanoclip.train.data.layouts.layout import Found, Layout
from kanoclip.train.data.layouts.medical import bmad, head_ct, two_folders
from kanoclip.train.data.layouts.meta import meta_json
from kanoclip.train.data.layouts.names import CLASS_NAMES, words
from kanoclip.train.data.layouts.surfaces import SDD, dagm_download, sdd_download
from kanoclip.train.data.layouts.tree import any_tree, tree_of, tree_of_one
from kanoclip.train.data.layouts.visa import visa_download
from kanoclip.train.data.types import Category, Dataset

DATASETS: dict[str, Layout] = {
    "mvtec": Layout(
        "MVTec-AD, or your own images in its tree",
        (any_tree(),),
        CLASS_NAMES["mvtec"],
        True,
        ("mvtec",),
        any_category=True,
    ),
    "visa": Layout(
        "VisA: boards, food, candles",
        (visa_download(), tree_of(CLASS_NAMES["visa"])),
        CLASS_NAMES["visa"],
        True,
        ("visa",),
        wrapped=True,
    ),
    "mpdd": Layout(
        "MPDD: painted metal parts", (tree_of(CLASS_NAMES["mpdd"]),), CLASS_NAMES["mpdd"], True, ("mpdd",), wrapped=True
    ),
    "btad": Layout(
        "BTAD: three industrial products",
        (tree_of(CLASS_NAMES["btad"]),),
        CLASS_NAMES["btad"],
        True,
        ("btad", "btech"),
        wrapped=True,
    ),
    "sdd": Layout(
        "KolektorSDD: cracks in commutators",
        (sdd_download(), tree_of_one(SDD)),
        CLASS_NAMES["sdd"],
        True,
        ("sdd", "kolektor", "commutator"),
        wrapped=True,
    ),
    "dagm": Layout(
        "DAGM 2007: ten textures",
        (dagm_download(), tree_of(CLASS_NAMES["dagm"])),
        CLASS_NAMES["dagm"],
        True,
        ("dagm",),
        wrapped=True,
    ),
    "brainmri": Layout(
        "BrainMRI (no masks), or BMAD's brain (masks)",
        (two_folders("brain", "yes", "no"), bmad("brain"), tree_of_one("brain")),
        CLASS_NAMES["brainmri"],
        True,
        ("brain_ad", "brainad", "brats", "brainmri", "brain_mri", "brain-mri", "brain_tumor_dataset"),
        wrapped=True,
    ),
    "liverct": Layout(
        "LiverCT: BMAD's liver",
        (bmad("liver"),),
        CLASS_NAMES["liverct"],
        True,
        ("liver", "hist_diy"),
        wrapped=True,
    ),
    "resc": Layout(
        "RESC: BMAD's retinal OCT with masks", (bmad("retina"),), CLASS_NAMES["resc"], True, ("resc",), wrapped=True
    ),
    "br35h": Layout(
        "Br35H: brain tumours",
        (two_folders("brain", "yes", "no"), tree_of_one("brain")),
        CLASS_NAMES["br35h"],
        False,
        ("br35",),
        wrapped=True,
    ),
    "covid19": Layout(
        "COVID-19 Radiography: COVID-19 against normal",
        (two_folders("chest", "COVID", "Normal"),),
        CLASS_NAMES["covid19"],
        False,
        ("covid",),
        wrapped=True,
    ),
    "headct": Layout(
        "HeadCT: hemorrhages",
        (head_ct("head"), tree_of_one("head")),
        CLASS_NAMES["headct"],
        False,
        ("headct", "head_ct", "head-ct"),
        wrapped=True,
    ),
    "meta": Layout(
        "Images that meta.json lists, as AnomalyCLIP and APRIL-GAN write it",
        (meta_json(),),
        {},
        True,
        any_category=True,
    ),
    "folder": Layout(
        "Your own images in normal/ and abnormal/, masks in masks/", (plain_folder(),), {}, True, any_category=True
    ),
}
"""Name -> layout."""


def open_dataset(
    name: str, root: Path, *, categories: Sequence[str] = (), split: Literal["train", "test", "all"] = "test"
) -> Dataset:
    """Lists a dataset's images and pairs their masks; opens none of them, except SDD's masks, which are its labels.

    Args:
        name: One of `DATASETS`.
        root: Its folder.
        categories: The categories wanted, all if empty.
        split: The images wanted.

    Raises:
        DataError: The name or a category is unknown, the root is no such dataset or cannot be read, or it has no
            image of this split.
    """
    if name not in DATASETS:
        raise DataError(f"no dataset is called {name!r}: the known ones are {', '.join(DATASETS)}")
    layout = DATASETS[name]
    found = _read(name, layout, root)
    names = sorted(found.samples, key=lambda category: natural_key(Path(category)))
    if unknown := [category for category in categories if category not in found.samples]:
        raise DataError(f"{root} has no category {unknown[0]!r}: it has {', '.join(names)}")
    chosen = []
    for category in names:
        if categories and category not in categories:
            continue
        samples = [sample for sample in found.samples[category] if split in ("all", sample.split)]
        samples.sort(key=lambda sample: sample.image)
        chosen.append(Category(category, layout.class_names.get(category) or words(category), tuple(samples)))
    if not any(category.samples for category in chosen):
        others = sorted({sample.split for category in chosen for sample in found.samples[category.name]})
        has = f": it has images of the split {' and '.join(others)}" if others else ""
        raise DataError(f"{root} ({name}) has no image{'' if split == 'all' else f' of the split {split}'}{has}")
    chosen_names = {category.name for category in chosen}
    problems = tuple(problem for problem in found.problems if problem.category in chosen_names)
    return Dataset(name, root, tuple(chosen), found.pixel_labels, problems)


def dataset_names(root: Path) -> list[str]:
    """Names of the datasets that a folder looks like, best guesses only.

    Raises:
        DataError: The root is no folder.
    """
    _check_root(root)
    return recognise(DATASETS, root)


def _read(name: str, layout: Layout, root: Path) -> Found:
    _check_root(root)
    hit = locate(layout, root)
    if hit is None:
        expected = " or ".join(form.shape for form in layout.forms)
        if len(layout.class_names) > 1 and not layout.any_category:
            expected += f", where CATEGORY is one of {', '.join(layout.class_names)}"
        fits = [other for other in recognise(DATASETS, root) if other != name]
        hint = f"; it looks like {' or '.join(fits)}: give that name" if fits else ": check the path"
        raise DataError(f"{root} is not laid out as {name}, which is {expected}{hint}")
    form, folder = hit
    return form.read(folder)


def _check_root(root: Path) -> None:
    if not is_folder(root):
        raise DataError(f"{root} is not a folder: give the folder that holds the dataset")
