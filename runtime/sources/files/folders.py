"""The images below a folder or of a glob, in natural order: each file once, whatever links lead to it.

A link to a file or a folder outside is followed, once. One to something inside is left out, since that is found by
itself; so is one to a folder above, which would go round for ever. What is left out is said. Nothing is held but the
names of one folder at a time and what links were followed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.system.files.own import MARK, own_in

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2"})
MASK_FOLDER = "ground_truth"
"""Folder of an MVTec-layout data set that holds masks beside `test`; its images are answers, not inputs."""
MAGIC = re.compile(r"[*?[]")


class Name(NamedTuple):
    """An entry of a folder."""

    name: str
    path: str
    is_folder: bool


NamesIn = Callable[[str], Iterable[Name]]


class Links:
    """Which links of a tree are followed.

    Args:
        root: The tree's folder, which may be a link itself.
    """

    def __init__(self, root: str) -> None:
        self._shown = root
        self._root = os.path.realpath(root)
        self._followed: set[str] = set()
        self._left_out: list[str] = []
        self._written: list[str] = []

    def names_in(self, folder: str) -> Iterator[Name]:
        """The entries of a folder of the tree, without the links that are not followed.

        Raises:
            SourceError: It cannot be listed.
        """
        try:
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: natural_key(Path(entry.name)))
            here = os.path.realpath(folder)
            own = own_in(folder, named=folder == self._shown)
            for entry in found:
                if entry.name.startswith("."):
                    continue
                if own.has(entry.name):
                    if own.everything or is_image(entry.name):
                        self._written.append(entry.path)
                    continue
                if not entry.is_symlink():
                    # What was followed to, or the tree itself, may lie in a folder that is followed to later.
                    real = f"{here.rstrip('/')}/{entry.name}"
                    if real != self._root and real not in self._followed:
                        yield Name(entry.name, entry.path, entry.is_dir())
                elif (leads := _is_folder(entry)) is not False or is_image(entry.name):
                    if self._follow(os.path.realpath(entry.path), here):
                        yield Name(entry.name, entry.path, bool(leads))
                    else:
                        self._left_out.append(entry.path)
        except OSError as error:
            raise SourceError(f"{error.filename or folder}: folder cannot be listed ({error.strerror})") from error

    def report(self) -> None:
        """Says which links, and which files that a command wrote, were left out."""
        if self._written:
            log.info(
                "%d images and folders such as %s were written by kanoclip and are left out: delete %s beside them to "
                "have them read",
                *(len(self._written), self._written[0], MARK),
            )
            self._written = []
        if self._left_out:
            count, first = len(self._left_out), self._left_out[0]
            log.warning(
                "%s: %d %s left out, whose files are scored by another path, or that lead nowhere or to a folder above "
                "(the first: %s)",
                *(self._shown, count, "link is" if count == 1 else "links are", first),
            )
            self._left_out = []

    def _follow(self, target: str, here: str) -> bool:
        inside = _is_below(target, self._root) or any(_is_below(target, one) for one in self._followed)
        if inside or _is_below(here, target) or not os.path.exists(target):  # noqa: PTH110 - a name as the system gave it
            return False
        self._followed.add(target)
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """Whether a link leads to a folder; None where it leads round in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return None


def images_in(folder: str) -> Iterator[str]:
    """Yields the images below a folder, masks of an MVTec-layout data set and hidden ones left out.

    Raises:
        SourceError: A folder cannot be listed.
    """
    links = Links(folder)
    yield from walk(folder, links.names_in, masks=False)
    links.report()


def images_matching(pattern: str) -> Iterator[str]:
    """Yields the images that match a glob; `**` crosses folders.

    Raises:
        SourceError: A folder cannot be listed.
    """
    base, wanted = split(pattern)
    root = base or "."
    if not os.path.isdir(root):  # noqa: PTH112 - as it was written
        return
    links = Links(root)
    yield from matching(wanted, walk(root, links.names_in, depth=depth_of(pattern, base)), "" if base else "./")
    links.report()


def walk(folder: str, names_in: NamesIn, *, depth: int | None = None, masks: bool = True) -> Iterator[str]:
    """Images below a folder in natural order.

    Args:
        folder: Where.
        names_in: Gives a folder's names.
        depth: Levels to go down; None for all.
        masks: Whether the masks of an MVTec-layout data set count as images.
    """
    names = [one for one in names_in(folder) if not one.name.startswith(".")]
    folders = {one.name for one in names if one.is_folder}
    answers = not masks and "test" in folders
    for one in sorted(names, key=lambda one: natural_key(Path(one.name))):
        if one.is_folder:
            if depth != 1 and not (answers and one.name == MASK_FOLDER):
                yield from walk(one.path, names_in, depth=None if depth is None else depth - 1, masks=masks)
        elif is_image(one.name):
            yield one.path


def split(pattern: str) -> tuple[str, re.Pattern[str]]:
    """The folder before a glob's first wildcard, and what its paths must match."""
    base = pattern[: MAGIC.search(pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]
    if not base and pattern.startswith("/"):
        base = "/"
    return base, re.compile(_as_regex(pattern), re.DOTALL)


def depth_of(pattern: str, base: str) -> int | None:
    """Levels below the base at which a glob's files lie; None for any."""
    return None if "**" in pattern else pattern[len(base) :].strip("/").count("/") + 1


def matching(pattern: re.Pattern[str], paths: Iterable[str], prefix: str) -> Iterator[str]:
    """Those that match, without a prefix that they all have."""
    for path in paths:
        plain = path.removeprefix(prefix)
        if pattern.fullmatch(plain):
            yield plain


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path per name is slow


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which `2.jpg` comes before `10.jpg`."""
    key: list[tuple[int, int, str]] = []
    for part in path.parts:
        for token in re.findall(r"[0-9]+|[^0-9]+", part):
            key.append((0, int(token), token) if token.isdecimal() else (1, 0, token))
        key.append((-1, 0, ""))  # ends a folder's name before anything longer
    return key


def _is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder, or below it; both without links."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _as_regex(pattern: str) -> str:
    parts = []
    place = 0
    while place < len(pattern):
        if pattern.startswith("**/", place):
            parts.append("(?:.*/)?")
            place += 3
        elif pattern.startswith("**", place):
            parts.append(".*")
            place += 2
        elif pattern[place] == "[" and (end := pattern.find("]", place + 2)) > 0:
            inside = pattern[place + 1 : end].replace("\\", "\\\\")
            parts.append(f"[{'^' + inside[1:] if inside.startswith('!') else inside}]")
            place = end + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[place], re.escape(pattern[place])))
            place += 1
    return "".join(parts)
