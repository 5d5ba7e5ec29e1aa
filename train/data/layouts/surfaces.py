"""KolektorSDD and DAGM 2007 as they are downloaded: the image's label is in the masks.

KolektorSDD (https://www.vicos.si/resources/kolektorsdd): `kos01/Part0.jpg` with `kos01/Part0_label.bmp`; an image is
defective where its mask has an anomalous pixel (anomalib's kolektor.py, AdaCLIP's sdd-pre.py). It has no split for
anomaly detection: all of it is the test split, as zero-shot needs no training images. AnomalyCLIP and AdaCLIP test
on a part of it, cut in three, in the MVTec tree, which is read too.

DAGM (the Kaggle upload `DAGM_KaggleUpload`, which AnomalyCLIP's DAGM.py and AdaCLIP's dagm-pre.py read):
`Class1/{Train,Test}/0576.PNG`, `Class1/Train/Label/0576_label.PNG` for the defective ones and `Label/Labels.txt` with
lines of number, 0 or 1, image, 0, mask or 0. The split is the dataset's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from kanoclip.runtime.system.files.regular import read_small
from kanoclip.train.data.files import MaskPool, child, image_files, subfolders
from kanoclip.train.data.layouts.layout import GOOD, Form, Found
from kanoclip.train.data.layouts.names import CLASS_NAMES
from kanoclip.train.data.masks import decode_mask
from kanoclip.train.data.types import Problem, Sample, Split

SDD = "electrical_commutator"
DEFECT = "defect"
"""`Sample.defect` of the defective images: neither dataset names kinds."""

_SPLITS: tuple[Split, ...] = ("train", "test")
_LABEL = "_label"


def sdd_download() -> Form:
    """KolektorSDD's own form."""
    return Form("kosNN/PartN.jpg, kosNN/PartN_label.bmp", lambda root: bool(_parts(root)), _read_sdd)


def dagm_download() -> Form:
    """DAGM's own form."""
    shape = "ClassN/{Train,Test}/NNNN.PNG, ClassN/{Train,Test}/Label/NNNN_label.PNG"
    return Form(shape, lambda root: bool(_classes(root)), _read_dagm)


def _parts(root: Path) -> list[Path]:
    return [
        folder for folder in subfolders(root) if re.fullmatch(r"kos\d+", folder.name.casefold()) and image_files(folder)
    ]


def _read_sdd(root: Path) -> Found:
    samples = []
    problems = []
    for folder in _parts(root):
        images, pool = _split(image_files(folder))
        for image in images:
            mask = pool.take(image)
            decoded = decode_mask(mask) if mask is not None else "there is none"
            if isinstance(decoded, str):
                problems.append(
                    Problem(SDD, mask or image, f"left out, its mask says whether it is defective: {decoded}")
                )
            elif decoded.pixels.any():
                samples.append(Sample(image, True, mask, DEFECT, "test"))
            else:
                samples.append(Sample(image, False, None, GOOD, "test"))
        problems += [Problem(SDD, mask, "mask without an image") for mask in pool.left()]
    return Found({SDD: samples}, problems, pixel_labels=True)


def _split(files: list[Path]) -> tuple[list[Path], MaskPool]:
    """Images, and the masks among them."""
    masks = [file for file in files if file.stem.casefold().endswith(_LABEL)]
    return [file for file in files if file not in masks], MaskPool(masks)


def _classes(root: Path) -> list[Path]:
    folders = [folder for folder in subfolders(root) if folder.name in CLASS_NAMES["dagm"]]
    return [folder for folder in folders if any(image_files(child(folder, split)) for split in _SPLITS)]


def _read_dagm(root: Path) -> Found:
    found = Found(pixel_labels=True)
    for folder in _classes(root):
        name = folder.name
        samples = found.samples.setdefault(name, [])
        for split in _SPLITS:
            part = child(folder, split)
            images = image_files(part)
            labels = child(part, "Label")
            if labels is None:
                if images and part:
                    reason = f"no labels: this folder is missing, so the {len(images)} images are left out"
                    found.problems.append(Problem(name, part / "Label", reason))
                continue
            pool, listed = MaskPool(image_files(labels)), _listed(labels)
            for image in images:
                mask = pool.take(image)
                if mask is None and image.stem.casefold() in listed:
                    found.problems.append(Problem(name, image, "no mask"))
                elif mask is None:
                    samples.append(Sample(image, False, None, GOOD, split))
                    continue
                samples.append(Sample(image, True, mask, DEFECT, split))
            found.problems += [Problem(name, mask, "mask without an image") for mask in pool.left()]
    return found


def _listed(labels: Path) -> frozenset[str]:
    """Names of the images that `Labels.txt` gives a mask, so that a lost mask does not make its image normal."""
    path = next((file for file in labels.glob("*.txt") if file.name.casefold() == "labels.txt"), None)
    text = read_small(path).decode(errors="replace") if path is not None else ""
    return frozenset(name.casefold() for name in re.findall(rf"(\S+){_LABEL}\.png\b", text, re.IGNORECASE))
