"""`meta.json`, as APRIL-GAN's data/*.py and AnomalyCLIP's generate_dataset_json/*.py write it and read it.

`{"train": {CLASS: [{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}, ...]}, "test": {...}}`. What their
scripts do differently from one another, and is read too: DAGM's writes "Train" and "Test"; brainmri's and br35's write
paths that begin with the root; mask_path is empty (the loader then opens the root) where there is no mask.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.files import is_file
from kanoclip.train.data.layouts.layout import Form, Found
from kanoclip.train.data.layouts.listing import Listing, read_text
from kanoclip.train.data.types import Split

META = "meta.json"
UNNAMED = "anomaly"
"""`Sample.defect` of an anomalous image whose kind is not given, as in VisA's."""

_SPLITS: tuple[Split, ...] = ("test", "train")  # an image that is listed in both counts as a test image


def meta_json() -> Form:
    """The form."""
    return Form(f"{META} with img_path, mask_path, specie_name, anomaly", lambda root: is_file(root / META), _read)


def _read(root: Path) -> Found:
    path = root / META
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}): write it again") from error
    listing = Listing(root, path)
    parts = {key.casefold(): (key, value) for key, value in _object(content, path, "the file").items()}
    if not parts.keys() & set(_SPLITS):
        raise _wrong(path, "the file", 'an object with "train" or "test"')
    for split in _SPLITS:
        key, part = parts.get(split, (split, {}))
        for category, entries in _object(part, path, key).items():
            place = f"{key}.{category}"
            if not isinstance(entries, list):
                raise _wrong(path, place, "a list")
            if not category.strip() or not category.isprintable():
                raise _wrong(path, repr(place), "the name of a class")
            listing.category(category)
            for index, entry in enumerate(entries):
                _add(listing, path, category, split, entry, f"{place}[{index}]")
    return listing.found()


def _add(listing: Listing, path: Path, category: str, split: Split, entry: Any, place: str) -> None:
    fields = _object(entry, path, place)
    image = _text(fields, "img_path", path, place)
    if not image:
        raise _wrong(path, f"{place}.img_path", "the path of an image")
    anomaly = fields.get("anomaly")
    if anomaly not in (0, 1) or isinstance(anomaly, float):
        raise _wrong(path, f"{place}.anomaly", "0 or 1")
    mask = _text(fields, "mask_path", path, place, optional=True)
    kind = _text(fields, "specie_name", path, place, optional=True)
    listing.add(category, split, image, mask, (kind or UNNAMED) if anomaly else None, place)


def _object(value: Any, path: Path, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, place, "an object")
    return value


def _text(fields: dict[str, Any], name: str, path: Path, place: str, *, optional: bool = False) -> str:
    value = fields.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise _wrong(path, f"{place}.{name}", "a text")
    return value


def _wrong(path: Path, place: str, wanted: str) -> DataError:
    return DataError(f"{path}: {place} is not {wanted}: write it as AnomalyCLIP's generate_dataset_json scripts do")
