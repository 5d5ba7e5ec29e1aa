"""VisA as it is downloaded (https://github.com/amazon-science/spot-diff, VisA_20220922.tar).

`<category>/Data/Images/{Normal,Anomaly}/0000.JPG`, `<category>/Data/Masks/Anomaly/000.png` and `split_csv/1cls.csv`
with the columns object, split, label, image, mask; paths are relative to the root. The literature's split is
the csv's (APRIL-GAN's data/visa.py, anomalib's visa.py). Masks hold 1, 2, ... for the kinds of defect.
"""

from __future__ import annotations

from pathlib import Path

from kanoclip.train.data.files import child, image_files
from kanoclip.train.data.layouts.layout import Form, Found
from kanoclip.train.data.layouts.listing import Listing, read_csv, wrong_line
from kanoclip.train.data.layouts.names import CLASS_NAMES
from kanoclip.train.data.types import Problem, Split

SHAPE = "CATEGORY/Data/Images/{Normal,Anomaly}, CATEGORY/Data/Masks/Anomaly, split_csv/1cls.csv"

_COLUMNS = ["object", "split", "label", "image", "mask"]
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
_DEFECTS = {"normal": None, "anomaly": "anomaly"}


def visa_download() -> Form:
    """The form."""
    return Form(SHAPE, lambda root: bool(_categories(root)), _read)


def _categories(root: Path) -> dict[str, Path]:
    """Name -> its `Data` folder, for the categories that are there."""
    found = {name: child(root / name, "Data") for name in CLASS_NAMES["visa"]}
    return {name: data for name, data in found.items() if data is not None and child(data, "Images")}


def _read(root: Path) -> Found:
    path = root / "split_csv" / "1cls.csv"
    categories = _categories(root)
    listing = Listing(root, path)
    for name in categories:
        listing.category(name)
    for number, (category, split, label, image, mask) in read_csv(path, _COLUMNS):
        if split not in _SPLITS or label not in _DEFECTS:
            raise wrong_line(
                path, number, f"split {split!r} and label {label!r}: they are train or test, normal or anomaly"
            )
        if category in categories:  # others were not downloaded
            listing.add(category, _SPLITS[split], image, mask, _DEFECTS[label], f"line {number}")
    found = listing.found()
    for name, data in categories.items():
        for folder, reason in (("Images", "not listed in 1cls.csv"), ("Masks", "mask without an image")):
            kinds = (child(child(data, folder), kind) for kind in ("Normal", "Anomaly"))
            extra = [
                file
                for kind in kinds
                for file in image_files(kind)
                if root / file.relative_to(root) not in listing.seen
            ]
            found.problems += [Problem(name, file, reason) for file in extra]
    return found
