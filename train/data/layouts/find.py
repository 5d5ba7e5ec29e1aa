"""Which folder at or below a root holds a dataset, and in which form."""

from __future__ import annotations

from pathlib import Path

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.files import name_of, subfolders
from kanoclip.train.data.layouts.layout import Form, Layout

_LEVELS_BELOW = 2
_MANY = 200
"""A level with more folders is no wrapper; looking into each would take long on a whole disk."""


def locate(layout: Layout, root: Path) -> tuple[Form, Path] | None:
    """The form and folder of a dataset; the root itself before what lies below it.

    Args:
        layout: The dataset.
        root: Where to look.

    Returns:
        None if the dataset is not there.

    Raises:
        DataError: Several folders could be it.
    """
    level = [root]
    for depth in range(_LEVELS_BELOW + 1 if layout.wrapped else 1):
        hits = [(form, folder) for folder in level if (form := _form(layout, folder, sure=depth == 0)) is not None]
        if len(hits) > 1:
            hits = [hit for hit in hits if hinted(layout, hit[1])] or hits
        if len(hits) > 1:
            places = ", ".join(str(folder) for _, folder in hits[:5])
            raise DataError(f"{root}: several folders could be this dataset ({places}): give one of them")
        if hits:
            return hits[0]
        level = [path for folder in level for path in _listed(folder)]
        if len(level) > _MANY:
            return None
    return None


def hinted(layout: Layout, folder: Path) -> bool:
    """Whether a folder is called like the dataset."""
    return any(hint in name_of(folder).casefold() for hint in layout.hints)


def recognise(layouts: dict[str, Layout], root: Path) -> list[str]:
    """Names of the datasets that a root looks like.

    The root itself counts for more than what lies below it. Then come those that the folders' names speak for, those
    whose form or categories do, and last `mvtec`, `folder` and `meta`.
    """
    ranks: dict[str, tuple[bool, int]] = {}
    for name, layout in layouts.items():
        try:
            hit = locate(layout, root)
        except DataError:  # several, or a folder that cannot be listed
            continue
        if hit is None:
            continue
        form, folder = hit
        named = hinted(layout, folder) or hinted(layout, root)
        if named or not form.vague:
            ranks[name] = (folder == root, 2 if named else 0 if layout.any_category else 1)
    return [name for name, rank in ranks.items() if rank == max(ranks.values())]


def _form(layout: Layout, folder: Path, sure: bool) -> Form | None:
    """The first form that a folder has; below the root a vague one counts only in a folder of the dataset's name."""
    try:
        forms = (form for form in layout.forms if form.matches(folder))
        return next((form for form in forms if sure or not form.vague or hinted(layout, folder)), None)
    except DataError:
        if sure:
            raise
        return None


def _listed(folder: Path) -> list[Path]:
    try:
        return subfolders(folder)
    except DataError:
        return []
