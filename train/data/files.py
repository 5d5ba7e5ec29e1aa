"""What lies in a folder of a dataset, without what operating systems leave there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from kanoclip.runtime.errors import DataError
from kanoclip.runtime.system.files.guard import Read

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

_FOREIGN = frozenset({"__MACOSX", "lost+found", "System Volume Information"})


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; hidden ones and what systems put there are no part of a dataset.

    Raises:
        DataError: The folder cannot be listed.
    """
    return sorted(Path(entry) for entry in _entries(folder) if entry.name not in _FOREIGN and is_folder(entry))


def image_files(folder: Path | None) -> list[Path]:
    """The image files in a folder, sorted, whatever the case of their extension; none if there is no folder.

    A link whose target is gone is listed: reading it then says so.

    Raises:
        DataError: The folder cannot be listed.
    """
    if folder is None:
        return []
    found = [entry for entry in _entries(folder) if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES]  # noqa: PTH122 - a Path per entry is slow
    return sorted(Path(entry) for entry in found if not is_folder(entry))


def child(folder: Path | None, *names: str) -> Path | None:
    """The first folder of one of these names, ignoring case; the exact case wins. None if there is none."""
    if folder is None or not is_folder(folder):
        return None
    for name in names:
        if is_folder(exact := folder / name):
            return exact
    wanted = [name.casefold() for name in names]
    found = [path for path in subfolders(folder) if path.name.casefold() in wanted]
    return min(found, key=lambda path: wanted.index(path.name.casefold()), default=None)


def is_folder(path: os.PathLike[str]) -> bool:
    """Whether a path is a folder or a link to one; False where that cannot be known, which pathlib raises for."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether a path is a file or a link to one; False where that cannot be known."""
    return os.path.isfile(path)  # noqa: PTH113


def name_of(folder: Path) -> str:
    """A folder's own name, also where the path is `.`."""
    return folder.absolute().name or folder.resolve().name


def read_below(root: Path) -> Read:
    """A dataset as something that is read: no output may be one of its files."""
    return Read("the dataset's file", root, files=lambda: (path for path in root.rglob("*") if is_file(path)))


def below(root: Path, path: str) -> Path | None:
    """A path that a dataset's own file gives, joined to the root; None if it leaves the root.

    Symbolic links are not followed: a dataset of links to another disk is fine, `../` is not.
    """
    if "\0" in path:
        return None
    base = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow the links
    whole = Path(os.path.normpath(base / path))
    return root / whole.relative_to(base) if whole.is_relative_to(base) and whole != base else None


class MaskPool:
    """Mask files that are given out to images by name; what nobody takes has no image.

    `000.png` takes the mask `000_mask`, `000_label` or `000`, of any extension and case.
    """

    _ENDINGS = ("_mask", "_label", "")

    def __init__(self, masks: Iterable[Path]) -> None:
        self._masks: dict[str, list[Path]] = {}
        for mask in masks:
            self._masks.setdefault(mask.stem.casefold(), []).append(mask)

    def take(self, image: Path) -> Path | None:
        """An image's mask, which no other image gets then."""
        for ending in self._ENDINGS:
            if masks := self._masks.get(image.stem.casefold() + ending):
                return masks.pop(0)
        return None

    def left(self) -> list[Path]:
        """Masks that no image has taken, sorted."""
        return sorted(mask for masks in self._masks.values() for mask in masks)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: this folder cannot be listed ({error.strerror}): check the path and its rights"
        ) from error
