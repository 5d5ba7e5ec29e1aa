"""Which files a source reads, before it is opened: no output may be one of them."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.files.folders import is_image
from kanoclip.runtime.sources.files.images import ImageSource
from kanoclip.runtime.sources.files.listing import list_images
from kanoclip.runtime.sources.files.watched import WATCH, WatchedFolder
from kanoclip.runtime.sources.gstreamer.gstreamer import GST, files_of_pipeline
from kanoclip.runtime.system.files.guard import Read


def reads_of(spec: str, what: str = "the source") -> list[Read]:
    """The files of a source.

    Args:
        spec: As `open_source` takes it. One that cannot be read is refused where it is opened.
        what: Names it in messages.

    Returns:
        Nothing for a stream, which has no files.
    """
    if spec.startswith(WATCH):
        try:
            watched = WatchedFolder.parse(spec)
        except SourceError:
            return []
        found = [Read(what, watched.folder, partial(_watched, watched))]
        # What is moved there has the names that annotated images would have.
        return found if watched.done is None else [*found, Read("the done folder of", watched.done, closed=True)]
    if spec.startswith(GST):
        return [Read(what, path) for path in files_of_pipeline(spec)]
    if "://" in spec or "\0" in spec:
        return []
    try:
        path = Path(spec).expanduser()
        if path.is_dir():
            return [Read(what, path, partial(_images, spec, path))]
        if path.exists() or not glob.has_magic(spec):
            return [Read(what, path, lambda: [path] if is_image(path.name) else [])]
    except (OSError, ValueError, RuntimeError):
        return []
    # A pattern is no file: what it stands for is looked up where an output is there already.
    return [Read(what, path, partial(_images, spec, path))]


def _images(spec: str, path: Path) -> Iterable[Path]:
    try:
        return (ImageSource.from_folder(path) if path.is_dir() else ImageSource.from_glob(spec)).paths
    except SourceError:
        return ()


def _watched(watched: WatchedFolder) -> Iterable[Path]:
    try:
        return [Path(entry.path) for entry in list_images(watched.folder, watched.done)]
    except OSError:
        return ()
