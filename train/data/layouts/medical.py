"""The medical datasets as they are downloaded.

BrainMRI (Kaggle navoneel/brain-mri-images-for-brain-tumor-detection) and Br35H (Kaggle
ahmedhamada0/brain-tumor-detection): `yes/` and `no/`, no masks. BrainMRI's archive holds them twice, the second time in
`brain_tumor_dataset/`; Br35H's `pred/` has no labels and is left out.

BMAD (https://github.com/DorisBao/BMAD; the papers with pixel metrics mean its Brain, Liver and RESC):
`test/{good,Ungood}/{img,label}`, `train/good`. MVFA's repack (https://github.com/MediaBrain-SJTU/MVFA-AD) calls the
masks `anomaly_mask`; BMAD's own Liver and RESC archives swap the two levels (`test/{img,label}/{good,Ungood}`,
`Test/{test,test_label}/...`). `valid/` is for choosing models and is left out.

COVID-19 Radiography (Kaggle tawsifurrahman/covid19-radiography-database): `COVID` against `Normal`, the other diseases
are left out. `masks/` beside `images/` are outlines of the lungs, not of anomalies: they are never used. The first
releases, which AnomalyCLIP's covid.py reads, have the images in `COVID/` and `NORMAL/` themselves.

HeadCT (Kaggle felipekitamura/head-ct-hemorrhage): `head_ct/head_ct/000.png` and `labels.csv` with the columns id and
hemorrhage. AnomalyCLIP and AdaCLIP use a copy in the MVTec tree, without masks.

All but BMAD's have no split: all of it is the test split, as in AnomalyCLIP's scripts.
"""

from __future__ import annotations

from pathlib import Path

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.files import MaskPool, child, image_files, is_file
from kanoclip.train.data.layouts.layout import GOOD, Form, Found
from kanoclip.train.data.layouts.listing import read_csv, wrong_line
from kanoclip.train.data.types import Problem, Sample

_IMAGES = ("img", "test")
_MASKS = ("label", "anomaly_mask", "test_label")


def two_folders(category: str, abnormal: str, normal: str) -> Form:
    """A folder of abnormal and one of normal images, or of their `images`; no masks."""

    def read(root: Path) -> Found:
        samples = []
        for name in (abnormal, normal):
            folder = child(root, name)
            for image in image_files(child(folder, "images") or folder):
                samples.append(Sample(image, name == abnormal, None, abnormal if name == abnormal else GOOD, "test"))
        return Found({category: samples})

    shape = f"{abnormal}/[images/]NAME.png, {normal}/[images/]NAME.png"
    return Form(shape, lambda root: all(child(root, name) for name in (abnormal, normal)), read)


def bmad(category: str) -> Form:
    """BMAD's form of a dataset with masks."""
    shape = "test/{good,Ungood}/{img,label|anomaly_mask}, train/good[/img]"
    return Form(shape, lambda root: _bmad_test(root) is not None, lambda root: _read_bmad(category, root))


def head_ct(category: str) -> Form:
    """HeadCT's own form."""
    return Form(
        "head_ct/[head_ct/]NNN.png, labels.csv",
        lambda root: is_file(root / "labels.csv") and child(root, "head_ct") is not None,
        lambda root: _read_head_ct(category, root),
    )


def _bmad_test(root: Path) -> tuple[Path, Path, Path | None] | None:
    """Folders of the normal and the abnormal test images and of their masks."""
    test = child(root, "test")
    good, bad = child(test, "good"), child(test, "ungood")
    normal, abnormal, masks = child(good, *_IMAGES), child(bad, *_IMAGES), child(bad, *_MASKS)
    if normal is None and abnormal is None:
        images = child(test, *_IMAGES)
        normal, abnormal = child(images, "good"), child(images, "ungood")
        masks = child(child(test, *_MASKS), "ungood")
    return (normal, abnormal, masks) if normal is not None and abnormal is not None else None


def _read_bmad(category: str, root: Path) -> Found:
    folders = _bmad_test(root)
    if folders is None:
        raise DataError(f"{root} has changed while it was read: try again")
    normal, abnormal, masks = folders
    train = child(root, "train")
    good = child(train, "good") or child(child(train, "img", "train"), "good")
    samples = [Sample(image, False, None, GOOD, "train") for image in image_files(child(good, "img") or good)]
    samples += [Sample(image, False, None, GOOD, "test") for image in image_files(normal)]
    problems = []
    pool = MaskPool(image_files(masks))
    for image in image_files(abnormal):
        mask = pool.take(image)
        if mask is None and masks is not None:
            problems.append(Problem(category, image, "no mask"))
        samples.append(Sample(image, True, mask, "Ungood", "test"))
    problems += [Problem(category, mask, "mask without an image") for mask in pool.left()]
    return Found({category: samples}, problems, pixel_labels=masks is not None)


def _read_head_ct(category: str, root: Path) -> Found:
    outer = child(root, "head_ct")
    left = {image.stem.lstrip("0"): image for image in image_files(child(outer, "head_ct") or outer)}
    samples, problems = [], []
    for number, anomalous in _head_ct_labels(root / "labels.csv"):
        image = left.pop(number.lstrip("0"), None)
        if image is None:
            missing = (child(outer, "head_ct") or outer or root) / f"{number:0>3}.png"
            problems.append(Problem(category, missing, "listed in labels.csv, but missing"))
        else:
            samples.append(Sample(image, anomalous, None, "hemorrhage" if anomalous else GOOD, "test"))
    problems += [Problem(category, image, "left out, labels.csv does not list it") for image in left.values()]
    return Found({category: samples}, problems)


def _head_ct_labels(path: Path) -> list[tuple[str, bool]]:
    """(id, is there a hemorrhage) of each line."""
    labels = []
    for number, (identity, hemorrhage) in read_csv(path, ["id", "hemorrhage"]):
        if not identity.isdecimal() or hemorrhage not in ("0", "1"):
            raise wrong_line(path, number, f"{identity!r}, {hemorrhage!r} are not a number and 0 or 1")
        labels.append((identity, hemorrhage == "1"))
    return labels
