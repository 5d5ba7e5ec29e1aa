"""The MVTec tree, which most industrial datasets come in and others are converted to.

`<category>/train/good`, `<category>/test/<defect>/000.png`, `<category>/ground_truth/<defect>/000_mask.png`, as
https://www.mvtec.com/company/research/datasets/mvtec-ad has it. What varies, and is read too:

- MPDD (https://github.com/stepanje/MPDD) is the same tree.
- BTAD (BTech_Dataset_transformed) calls normal images `ok` and defective ones `ko`; masks have the image's name
  without `_mask`, as .png or .bmp whatever the image is (anomalib's btech.py, AnomalyCLIP's btad.py).
- VisA after spot-diff's prepare_data.py (`1cls/`, or anomalib's `visa_pytorch/`): one defect, `bad`, and masks of the
  image's name.
- AdaCLIP's conversions of DAGM: masks end in `_label`.
- MVTec LOCO (https://www.mvtec.com/company/research/datasets/mvtec-loco): a folder of masks for each image,
  `ground_truth/DEFECT/000/000.png`, `001.png`, ..., of which together what is anomalous.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from kanoclip.train.data.files import MaskPool, child, image_files, name_of, subfolders
from kanoclip.train.data.layouts.layout import GOOD, Form, Found
from kanoclip.train.data.types import Problem, Sample, Split

NORMAL = frozenset({"good", "ok"})
SHAPE = (
    "[CATEGORY/]test/good, [CATEGORY/]test/DEFECT/NAME.png, [CATEGORY/]ground_truth/DEFECT/NAME_mask.png or NAME/*.png"
)

_SPLITS: tuple[Split, ...] = ("test", "train")


def any_tree() -> Form:
    """The tree with categories of any name; the root itself may be one."""
    return Form(SHAPE, lambda root: bool(_categories(root)), lambda root: _read(_by_name(_categories(root))))


def tree_of(names: Collection[str]) -> Form:
    """The tree with some of a dataset's categories; other folders are not its own."""

    def known(root: Path) -> dict[str, Path]:
        return {name: path for name, path in _by_name(_categories(root)).items() if name in names}

    return Form(SHAPE, lambda root: bool(known(root)), lambda root: _read(known(root)))


def tree_of_one(name: str) -> Form:
    """The tree with a single category, whose folder may be called anything."""
    return Form(
        SHAPE,
        lambda root: len(_categories(root)) == 1,
        lambda root: _read({name: _categories(root)[0]}),
        vague=True,
    )


def _categories(root: Path) -> list[Path]:
    return [root] if _is_category(root) else [folder for folder in subfolders(root) if _is_category(folder)]


def _by_name(folders: list[Path]) -> dict[str, Path]:
    return {name_of(folder): folder for folder in folders}


def _is_category(folder: Path) -> bool:
    """Images in folders of `test`, and something that says that these folders are defects and not other classes."""
    kinds = _kinds(folder, "test")
    if not any(image_files(kind) for kind in kinds):
        return False
    return any(_is_normal(kind) for kind in (*kinds, *_kinds(folder, "train"))) or _truth(folder) is not None


def _read(categories: dict[str, Path]) -> Found:
    found = Found()
    bare = []
    for name, folder in categories.items():
        truth = _truth(folder)
        found.samples[name], problems = _read_category(name, folder, truth)
        found.problems += problems
        if truth is None:
            bare.append(Problem(name, folder / "ground_truth", "no masks: this folder is missing"))
    found.pixel_labels = len(bare) < len(categories)
    if found.pixel_labels:  # otherwise the dataset has none, which is no fault of any category
        found.problems += [one for one in bare if any(sample.anomalous for sample in found.samples[one.category])]
    return found


def _read_category(name: str, folder: Path, truth: Path | None) -> tuple[list[Sample], list[Problem]]:
    samples: list[Sample] = []
    problems: list[Problem] = []
    pools = (
        {kind.name.casefold(): MaskPool([*image_files(kind), *_mask_folders(kind)]) for kind in subfolders(truth)}
        if truth
        else {}
    )
    for split, kind, image in _labelled_files(folder):
        if _is_normal(kind):
            samples.append(Sample(image, False, None, GOOD, split))
            continue
        pool = pools.get(kind.name.casefold())
        mask = pool.take(image) if pool is not None else None
        if mask is None and truth is not None:
            problems.append(Problem(name, image, "no mask"))
        samples.append(Sample(image, True, mask, kind.name, split))
    left = [mask for kind, pool in pools.items() if kind not in NORMAL for mask in pool.left()]
    problems += [Problem(name, mask, "mask without an image") for mask in (*left, *image_files(truth))]
    return samples, problems


def _mask_folders(kind: Path) -> list[Path]:
    """Folders that each hold one image's masks."""
    return [folder for folder in subfolders(kind) if image_files(folder)]


def _labelled_files(folder: Path) -> Iterator[tuple[Split, Path, Path]]:
    for split in _SPLITS:
        for kind in _kinds(folder, split):
            for image in image_files(kind):
                yield split, kind, image


def _kinds(folder: Path, split: str) -> list[Path]:
    part = child(folder, split)
    return subfolders(part) if part is not None else []


def _truth(folder: Path) -> Path | None:
    return child(folder, "ground_truth")


def _is_normal(kind: Path) -> bool:
    return kind.name.casefold() in NORMAL
