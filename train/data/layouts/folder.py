"""The plain folder for people's own images: `normal/`, `abnormal/` and, where there are any, `masks/`.

`abnormal/` holds images, or a folder for each kind of defect; `masks/` then holds the same folders, or all masks.
"""

from __future__ import annotations

from pathlib import Path

from kanoclip.train.data.files import MaskPool, child, image_files, name_of, subfolders
from kanoclip.train.data.layouts.layout import GOOD, Form, Found
from kanoclip.train.data.types import Problem, Sample

SHAPE = "normal/NAME.png, abnormal/[DEFECT/]NAME.png, masks/[DEFECT/]NAME.png"


def plain_folder() -> Form:
    """The form; its only category has the root's name, and all of it is the test split."""
    return Form(SHAPE, _matches, _read)


def _matches(root: Path) -> bool:
    return child(root, "normal") is not None and child(root, "abnormal") is not None


def _read(root: Path) -> Found:
    name = name_of(root)
    abnormal, masks = child(root, "abnormal"), child(root, "masks")
    shared = MaskPool(image_files(masks))
    pools = [shared]
    samples = [Sample(image, False, None, GOOD, "test") for image in image_files(child(root, "normal"))]
    problems = []
    for kind in (abnormal, *subfolders(abnormal)) if abnormal else ():
        pool = shared
        if kind != abnormal and (own := child(masks, kind.name)) is not None:
            pool = MaskPool(image_files(own))
            pools.append(pool)
        for image in image_files(kind):
            mask = pool.take(image)
            if mask is None and masks is not None:
                problems.append(Problem(name, image, "no mask"))
            samples.append(Sample(image, True, mask, kind.name, "test"))
    problems += [Problem(name, mask, "mask without an image") for pool in pools for mask in pool.left()]
    return Found({name: samples}, problems, masks is not None)
