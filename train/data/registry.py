"""The datasets by name, and the one function that opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.sources.images import natural_key
from kanoclip.train.data.folder import plain_folder
from kanoclip.train.data.layout import Form, Found, Layout
from kanoclip.train.data.names import CLASS_NAMES, words
from kanoclip.train.data.tree import any_tree, tree_of
from kanoclip.train.data.types import Category, Dataset

DATASETS: dict[str, Layout] = {
    "mvtec": Layout(
        "MVTec-AD, or your own pictures in its tree", (any_tree(),), CLASS_NAMES["mvtec"], pixel_labels=True
    ),
    "mpdd": Layout("MPDD: painted metal parts", (tree_of(CLASS_NAMES["mpdd"]),), CLASS_NAMES["mpdd"], True, ("mpdd",)),
    "folder": Layout("Your own pictures: normal/, abnormal/, masks/", (plain_folder(),), {}, pixel_labels=True),
}
"""Name -> layout."""


def open_dataset(
    name: str, root: Path, *, categories: Sequence[str] = (), split: Literal["train", "test", "all"] = "test"
) -> Dataset:
    """Lists a dataset's pictures and pairs their masks; opens no picture (except SDD's, whose masks are its labels).

    Args:
        name: One of `DATASETS`.
        root: Its folder.
        categories: The categories wanted, all if empty.
        split: The pictures wanted.

    Raises:
        DataError: The name or a category is unknown, the root is no such dataset or cannot be read, or it has no
            picture of this split.
    """
    if name not in DATASETS:
        raise DataError(f"no dataset is called {name!r}: the known ones are {', '.join(DATASETS)}")
    layout = DATASETS[name]
    found = _find(name, layout, root)
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
        has = f"; it has pictures of the split {' and '.join(others)}" if others else ""
        raise DataError(f"{root} ({name}) has no picture{'' if split == 'all' else f' of the split {split}'}{has}")
    kept = {category.name for category in chosen}
    problems = tuple(problem for problem in found.problems if problem.category in kept)
    return Dataset(name, root, tuple(chosen), found.pixel_labels, problems)


def _find(name: str, layout: Layout, root: Path) -> Found:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder: give the folder that holds the dataset")
    form = _matching(layout, root)
    if form is not None:
        return form.read(root)
    expected = "; or ".join(form.shape for form in layout.forms)
    fits = [other for other in DATASETS if other != name and _matching(DATASETS[other], root)]
    hint = f". It looks like {' or '.join(fits)}: give that name" if fits else ""
    raise DataError(f"{root} is not laid out as {name}; looked for {expected}{hint}")


def _matching(layout: Layout, root: Path) -> Form | None:
    return next((form for form in layout.forms if form.matches(root)), None)
