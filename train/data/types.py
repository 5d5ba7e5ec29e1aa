"""What every dataset layout is read into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset.

    Attributes:
        image: The image's file.
        anomalous: Its image-level label.
        mask: Its ground-truth mask, None for a normal image and where none exists.
        defect: Kind of defect as the dataset names it, `good` for a normal image.
        split: The part of the dataset it belongs to.
    """

    image: Path
    anomalous: bool
    mask: Path | None
    defect: str
    split: Split


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a dataset's files that does not keep the rest from being used.

    Attributes:
        category: Where it was found.
        path: The file at fault.
        reason: What is wrong with it, in a few words (`no mask`, `mask without an image`, ...).
        loses_data: An image or mask cannot be used. Otherwise it is only worth knowing.
    """

    category: str
    path: Path
    reason: str
    loses_data: bool = True


@dataclass(frozen=True, slots=True)
class Category:
    """One class of a dataset: a row of the tables.

    Attributes:
        name: The dataset's own name, as its folder has it (`metal_nut`, `01`, `Class7`).
        class_name: The words that stand for [class] in a prompt (`metal nut`).
        samples: Its images in a fixed order (sorted by path), of the splits asked for.
    """

    name: str
    class_name: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset on disk.

    Attributes:
        name: A name of the registry (`mvtec`).
        root: Its folder.
        categories: Its classes, sorted by name, numbers in it by value.
        pixel_labels: It has ground-truth masks. Without them no pixel metric is defined, even for normal images.
        problems: What is missing or unpaired.
    """

    name: str
    root: Path
    categories: tuple[Category, ...]
    pixel_labels: bool
    problems: tuple[Problem, ...]
