"""What a dataset's folder holds, and what is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from kanoclip.runtime.sources.files import images
from kanoclip.runtime.sources.files.headers.header import image_size
from kanoclip.train.data.masks import HANDFUL, decode_mask
from kanoclip.train.data.types import Category, Dataset, Problem, Sample


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """One class of a dataset.

    Attributes:
        name: Its name in the dataset.
        class_name: Words for [class] in a prompt.
        train: Images of the train split.
        test: Images of the test split.
        good: Normal images of both.
        anomalous: Anomalous ones.
        masks: Masks that were paired.
        defects: Kind of defect -> images.
        sizes: (height, width) -> images, of those that can be read.
    """

    name: str
    class_name: str
    train: int
    test: int
    good: int
    anomalous: int
    masks: int
    defects: dict[str, int]
    sizes: dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found.

    Attributes:
        dataset: Name of its layout.
        root: Its folder.
        pixel_labels: It has masks.
        deep: Every image was decoded.
        categories: Its classes.
        problems: All that is wrong, sorted by category.
    """

    dataset: str
    root: str
    pixel_labels: bool
    deep: bool
    categories: tuple[CategoryReport, ...]
    problems: tuple[Problem, ...]

    @property
    def complete(self) -> bool:
        """No image or mask is lost."""
        return not any(problem.loses_data for problem in self.problems)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dataset": self.dataset,
            "root": self.root,
            "complete": self.complete,
            "pixel_labels": self.pixel_labels,
            "deep": self.deep,
            "categories": {category.name: _category_json(category) for category in self.categories},
            "problems": [
                {
                    "category": problem.category,
                    "path": str(problem.path),
                    "reason": problem.reason,
                    "loses_data": problem.loses_data,
                }
                for problem in self.problems
            ],
        }


class _Examined(NamedTuple):
    size: tuple[int, int] | None
    problems: list[Problem]


def inspect(dataset: Dataset, *, deep: bool, advance: Callable[[], None]) -> Report:
    """Looks at every image and mask of a dataset.

    Args:
        dataset: With all its splits.
        deep: Decode everything, which finds damaged files, empty masks and masks with shades. Otherwise only headers
            are read, and what they leave open.
        advance: Called after each image.
    """

    def examine(job: tuple[Category, Sample]) -> _Examined:
        category, sample = job
        examined = _examine(category.name, sample, deep)
        advance()
        return examined

    jobs = [(category, sample) for category in dataset.categories for sample in category.samples]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and reading leave Python's lock
        examined = list(pool.map(examine, jobs))
    sizes: dict[str, Counter[tuple[int, int]]] = {category.name: Counter() for category in dataset.categories}
    for (category, _), result in zip(jobs, examined, strict=True):
        if result.size is not None:
            sizes[category.name][result.size] += 1
    problems = [*dataset.problems, *(problem for result in examined for problem in result.problems)]
    problems += [problem for category in dataset.categories for problem in _one_sided(category, dataset)]
    order = {category.name: index for index, category in enumerate(dataset.categories)}
    problems.sort(key=lambda problem: (order[problem.category], not problem.loses_data))
    reports = tuple(_report(category, sizes[category.name]) for category in dataset.categories)
    return Report(dataset.name, str(dataset.root), dataset.pixel_labels, deep, reports, tuple(problems))


def _examine(category: str, sample: Sample, deep: bool) -> _Examined:
    size = None if deep else image_size(sample.image)
    if size is None:
        image = images.read_image(sample.image)
        if isinstance(image, str):
            return _Examined(None, [Problem(category, sample.image, f"unreadable image: {image}")])
        size = image.shape[0], image.shape[1]
    if sample.mask is None or (not deep and image_size(sample.mask) == size):
        return _Examined(size, [])
    return _Examined(size, [Problem(category, sample.mask, *fault) for fault in _mask_faults(sample, size)])


def _mask_faults(sample: Sample, size: tuple[int, int]) -> list[tuple[str, bool]]:
    """(reason, does it lose data) of what is wrong with an image's mask."""
    decoded = decode_mask(sample.mask) if sample.mask is not None else "there is none"
    if isinstance(decoded, str):
        return [(f"unreadable mask: {decoded}", True)]
    height, width = decoded.pixels.shape
    if (height, width) != size:
        return [(f"mask of another size: {width} x {height}, its image {size[1]} x {size[0]}", True)]
    if not decoded.pixels.any():
        return [("empty mask: no pixel is anomalous", True)]
    found = []
    if decoded.in_alpha:
        found.append(("mask in transparency alone: its colours are one; opaque pixels count as anomalous", False))
    if (suspicion := decoded.suspicion) is not None:
        found.append((suspicion, False))
    if decoded.shades > HANDFUL:
        found.append((f"mask is not binary: {decoded.shades} values, anomalous from half of the largest on", False))
    return found


def _one_sided(category: Category, dataset: Dataset) -> list[Problem]:
    missing = [
        kind
        for kind, anomalous in (("normal", False), ("anomalous", True))
        if all(sample.anomalous is not anomalous for sample in category.samples)
    ]
    return [
        Problem(category.name, dataset.root, f"no {kind} image: image-level metrics are undefined", loses_data=False)
        for kind in missing
    ]


def _report(category: Category, sizes: Counter[tuple[int, int]]) -> CategoryReport:
    samples = category.samples
    anomalous = [sample for sample in samples if sample.anomalous]
    return CategoryReport(
        name=category.name,
        class_name=category.class_name,
        train=sum(sample.split == "train" for sample in samples),
        test=sum(sample.split == "test" for sample in samples),
        good=len(samples) - len(anomalous),
        anomalous=len(anomalous),
        masks=sum(sample.mask is not None for sample in samples),
        defects=dict(sorted(Counter(sample.defect for sample in anomalous).items())),
        sizes=dict(sizes.most_common()),
    )


def _category_json(category: CategoryReport) -> dict[str, Any]:
    return {
        "class_name": category.class_name,
        "train": category.train,
        "test": category.test,
        "good": category.good,
        "anomalous": category.anomalous,
        "masks": category.masks,
        "defects": category.defects,
        "sizes": [
            {"width": width, "height": height, "pictures": count} for (height, width), count in category.sizes.items()
        ],
    }
