"""The images of a folder, glob, table or URL: one after the other, in an order that never changes.

Nothing is held but the names of one folder at a time, so a million images take no more memory than the
largest folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kanoclip.runtime.errors import SourceError, one_line
from kanoclip.runtime.ops.score.places import filesystem_of, is_url
from kanoclip.runtime.sources.files.folders import (
    IMAGE_SUFFIXES,
    MAGIC,
    Name,
    depth_of,
    images_in,
    images_matching,
    matching,
    split,
    walk,
)
from kanoclip.runtime.system.files.regular import open_regular

TABLE = ".parquet"
_BATCH = 4096


class Item(NamedTuple):
    """An image to be scored.

    Attributes:
        path: Path or URL.
        class_name: What it shows, where its table says so.
    """

    path: str
    class_name: str | None = None


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
        yield from images_in(source)
    elif Path(source).is_file():
        yield source
    elif MAGIC.search(source):
        yield from images_matching(source)
    else:
        raise SourceError(f"{source}: no such file or folder")


def _of_url(source: str) -> Iterator[str]:
    """The same through fsspec."""
    filesystem, path = filesystem_of(source)
    listed = partial(_list, filesystem)
    try:
        if MAGIC.search(path):
            base, pattern = split(path)
            paths = matching(pattern, walk(base, listed, depth=depth_of(path, base)), "")
        elif filesystem.isfile(path):
            paths = iter([path])
        else:
            paths = walk(path, listed, masks=False)
        yield from (str(filesystem.unstrip_protocol(one)) for one in paths)
    except Exception as error:  # each store's library has errors of its own
        raise SourceError(f"{source} cannot be listed ({one_line(error)})") from error


def _list(filesystem: Any, folder: str) -> Iterator[Name]:
    for entry in filesystem.ls(folder, detail=True):
        path = str(entry["name"]).rstrip("/")
        if path != folder.rstrip("/"):  # object stores list a folder's own marker
            yield Name(path.rpartition("/")[2], path, entry["type"] == "directory")


def _of_table(source: str, column: str, class_column: str | None) -> Iterator[Item]:
    from kanoclip.runtime.ops.score.table import check_table, parquet, texts

    wanted = [column] if class_column is None else [column, class_column]
    row = 0
    try:
        with _opened(source) as file:
            table = parquet().ParquetFile(file)
            for name in wanted:
                if name not in table.schema_arrow.names:
                    has = ", ".join(table.schema_arrow.names)
                    raise SourceError(f"{source} has no column {name!r}, but {has}: name the right one")
            check_table(table, source, wanted)
            table = parquet().ParquetFile(file, read_dictionary=wanted, metadata=table.metadata)
            for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
                for values in zip(*(texts(batch.column(name)) for name in wanted), strict=True):
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
        return open_regular(Path(source))
    filesystem, path = filesystem_of(source)
    return filesystem.open(path, "rb")
