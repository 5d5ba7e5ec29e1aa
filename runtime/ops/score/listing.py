"""The images of a folder, glob, table or URL: one after the other, in an order that never changes.

Nothing is held but the names of one folder at a time, so a million images take no more memory than the
largest folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kanoclip.runtime.errors import SourceError, one_line
from kanoclip.runtime.ops.score.places import filesystem_of, is_url
from kanoclip.runtime.sources.files.images import IMAGE_SUFFIXES, MASK_FOLDER, natural_key
from kanoclip.runtime.system.files.own import Own, own_in

TABLE = ".parquet"
_MAGIC = re.compile(r"[*?[]")
_BATCH = 4096


class Item(NamedTuple):
    """An image to be scored.

    Attributes:
        path: Path or URL.
        class_name: What it shows, where its table says so.
    """

    path: str
    class_name: str | None = None


class _Name(NamedTuple):
    name: str
    path: str
    is_folder: bool


def list_items(source: str, column: str = "path", class_column: str | None = None) -> Iterator[Item]:
    """Yields the images of a source.

    Args:
        source: An image, a folder, a glob (`**` crosses folders) or a Parquet table of paths; a path or any URL that
            fsspec opens. Folders and globs come in natural order, as `kanoclip-run` takes them, tables as they are.
        column: Of the paths in a table; those that are relative belong to the current folder.
        class_column: Of the images' classes in a table; None where they have none.

    Raises:
        SourceError: There is no such source, no image in it, or a part of it cannot be listed.
    """
    if source.endswith(TABLE):
        yield from _of_table(source, column, class_column)
        return
    if class_column is not None:
        raise SourceError(f"{source}: only a {TABLE} table has a column of classes")
    found = False
    for path in _of_url(source) if is_url(source) else _of_folder(source):
        found = True
        yield Item(path)
    if not found:
        raise SourceError(f"{source}: no images there (looked for {' '.join(sorted(IMAGE_SUFFIXES))})")


def _of_folder(source: str) -> Iterator[str]:
    """An image, folder or glob of this machine."""
    if Path(source).is_dir():
        yield from _walk(source, _scan, masks=False)
    elif Path(source).is_file():
        yield source
    elif _MAGIC.search(source):
        base, pattern = _split(source)
        yield from _matching(pattern, _walk(base or ".", _scan, depth=_depth(source, base)), "" if base else "./")
    else:
        raise SourceError(f"{source}: no such file or folder")


def _of_url(source: str) -> Iterator[str]:
    """The same through fsspec."""
    filesystem, path = filesystem_of(source)
    listed = partial(_list, filesystem)
    try:
        if _MAGIC.search(path):
            base, pattern = _split(path)
            paths = _matching(pattern, _walk(base, listed, depth=_depth(path, base)), "")
        elif filesystem.isfile(path):
            paths = iter([path])
        else:
            paths = _walk(path, listed, masks=False)
        yield from (str(filesystem.unstrip_protocol(one)) for one in paths)
    except Exception as error:  # each store's library has errors of its own
        raise SourceError(f"{source} cannot be listed ({one_line(error)})") from error


def _walk(
    folder: str, names_in: Any, *, depth: int | None = None, masks: bool = True, named: bool = True
) -> Iterator[str]:
    """Images below a folder in natural order, without what commands wrote.

    Args:
        folder: Where.
        names_in: Gives a folder's names.
        depth: Levels to go down; None for all.
        masks: Whether the masks of an MVTec-layout data set count as images.
        named: The user named the folder itself.
    """
    own = own_in(folder, named=named) if names_in is _scan else Own()
    names: list[_Name] = [one for one in names_in(folder) if not (one.name.startswith(".") or own.has(one.name))]
    folders = {one.name for one in names if one.is_folder}
    answers = not masks and "test" in folders
    for one in sorted(names, key=lambda one: natural_key(Path(one.name))):
        if one.is_folder:
            if depth != 1 and not (answers and one.name == MASK_FOLDER):
                yield from _walk(
                    one.path, names_in, depth=None if depth is None else depth - 1, masks=masks, named=False
                )
        elif _is_image(one.name):
            yield one.path


def _scan(folder: str) -> Iterator[_Name]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield _Name(entry.name, entry.path, True)
                elif not entry.is_symlink() or entry.is_file():
                    yield _Name(entry.name, entry.path, False)
    except OSError as error:
        raise SourceError(f"{folder}: folder cannot be listed ({error.strerror})") from error


def _list(filesystem: Any, folder: str) -> Iterator[_Name]:
    for entry in filesystem.ls(folder, detail=True):
        path = str(entry["name"]).rstrip("/")
        if path != folder.rstrip("/"):  # object stores list a folder's own marker
            yield _Name(path.rpartition("/")[2], path, entry["type"] == "directory")


def _split(pattern: str) -> tuple[str, re.Pattern[str]]:
    """The folder before a glob's first wildcard, and what its paths must match."""
    base = pattern[: _MAGIC.search(pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]
    if not base and pattern.startswith("/"):
        base = "/"
    return base, re.compile(_as_regex(pattern), re.DOTALL)


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


def _depth(pattern: str, base: str) -> int | None:
    """Levels below the base at which a glob's files lie; None for any."""
    return None if "**" in pattern else pattern[len(base) :].strip("/").count("/") + 1


def _matching(pattern: re.Pattern[str], paths: Iterator[str], prefix: str) -> Iterator[str]:
    for path in paths:
        plain = path.removeprefix(prefix)
        if pattern.fullmatch(plain):
            yield plain


def _of_table(source: str, column: str, class_column: str | None) -> Iterator[Item]:
    from kanoclip.runtime.ops.score.table import parquet

    wanted = [column] if class_column is None else [column, class_column]
    row = 0
    try:
        with _opened(source) as file:
            table = parquet().ParquetFile(file)
            for name in wanted:
                if name not in table.schema_arrow.names:
                    has = ", ".join(table.schema_arrow.names)
                    raise SourceError(f"{source} has no column {name!r}, but {has}: name the right one")
            for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
                for values in zip(*(batch.column(name).to_pylist() for name in wanted), strict=True):
                    row += 1
                    if not all(isinstance(value, str) and value for value in values):
                        raise SourceError(f"{source}: row {row} has no text in {' and '.join(map(repr, wanted))}")
                    yield Item(*values)
    except (OSError, ValueError) as error:  # arrow's own errors are such
        raise SourceError(f"{source}: cannot be read as a Parquet table ({one_line(error)})") from error
    if not row:
        raise SourceError(f"{source}: the table has no rows")


def _opened(source: str) -> Any:
    if not is_url(source):
        return Path(source).open("rb")
    filesystem, path = filesystem_of(source)
    return filesystem.open(path, "rb")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path per name is slow
