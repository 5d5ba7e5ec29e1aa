"""`watch://FOLDER`: images that some other program puts into a folder, each scored once.

The folder is looked through again and again. Change events (inotify) would cost less, and does not work where
it matters: what another machine writes to a network share raises none. Nothing about a file that has gone is held
for long, so that memory is bounded by what lies in the folder: 16 bytes a file.
"""

from __future__ import annotations

import heapq
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kanoclip.runtime.errors import SourceError, SourceRefusedError
from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.files.folders import natural_key
from kanoclip.runtime.sources.files.images import read_image
from kanoclip.runtime.sources.files.listing import Entry, Known, entry_of, list_images
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.sources.gstreamer.query import decimal, split_query, whole
from kanoclip.runtime.types import BadFrame, Frame

log = logging.getLogger(__name__)

WATCH = "watch://"
LOOK_S = 0.25
"""Pause between two looks at the folder."""
UNFINISHED_S = 30.0
"""An image that cannot be read, and that nobody has written to for so long, is damaged."""
MOST_AT_ONCE = 1000
"""Files taken up in one look, oldest first; the rest is found in the next one."""
SLOW_LOOK_S = 2.0
"""A look that takes longer is reported, once."""

_REST = 10.0
"""A look that takes long is made more rarely: the pause is so many times as long."""


@dataclass(frozen=True)
class WatchedFolder:
    """What is watched: `watch:///data/in?done=/data/scored`.

    Attributes:
        folder: The folder, with all below it.
        done: A folder that files are moved to once they were read; None leaves them.
        existing: Whether files are scored that are there at the start. With `done`, they are what an earlier run has
            left over.
        every_s: Seconds between two looks.
    """

    folder: Path
    done: Path | None = None
    existing: bool = False
    every_s: float = LOOK_S

    @classmethod
    def parse(cls, spec: str) -> WatchedFolder:
        """Reads `watch://FOLDER?option=value&...`.

        Raises:
            SourceError: It is not of that form.
        """
        what, options = split_query(spec, WATCH, ("done", "existing", "every"), "?done=FOLDER&existing=1&every=0.5")
        if not what:
            raise SourceError(f"{WATCH}FOLDER: no folder is given")
        folder = Path(what).expanduser()
        done = Path(options["done"]).expanduser() if options.get("done") else None
        if "done" in options and done is None:
            raise SourceError(f"{spec}: done must be a folder")
        if done is not None and done.absolute() == folder.absolute():
            raise SourceError(f"{spec}: done must be another folder than the one that is watched")
        existing = whole(spec, "existing", options.get("existing", "0" if done is None else "1"), 0, 1)
        every = decimal(spec, "every", options.get("every", str(LOOK_S)), 0.02, 3600)
        return cls(folder, done, bool(existing), every)


class WatchSource(BaseSource):
    """Images that appear in a folder, in the order in which they were written, without end.

    An image is taken when two looks found it with the same size and time, and it can be read to its end. One that is
    written again is scored again. It waits for its reader rather than lose one, so it is not live.

    Args:
        spec: `watch://` with a folder and options, see `WatchedFolder`.
        reading: What becomes of damaged, of 16-bit and of large images.

    Raises:
        SourceRefusedError: There is no such folder.
        SourceError: It is not of that form, or the folder for scored images cannot be made.
    """

    live = False
    count: int | None = None
    fps: float | None = None

    def __init__(self, spec: str, reading: Reading = AS_IT_IS) -> None:
        self.watched = WatchedFolder.parse(spec)
        self.name = spec
        self.root: Path | None = self.watched.folder
        if not self.watched.folder.is_dir():
            raise SourceRefusedError(f"{self.watched.folder}: no such folder to watch")
        if self.watched.done is not None:
            try:
                self.watched.done.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SourceError(f"{self.watched.done}: cannot be made ({error.strerror})") from error
        self.reading = reading
        self._interrupted = threading.Event()
        self._known = Known()
        self._waiting: dict[str, tuple[int, float]] = {}  # path -> key, and since when it has that
        self._took = 0.0
        self._reported: set[str] = set()
        self._away_since: float | None = None
        if not self.watched.existing:
            for _ in self._known.look(list_images(self.watched.folder, self.watched.done)):
                pass
            self._known.add_present()

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields images as they appear, or a `BadFrame` for one that cannot be read, until `interrupt` is called."""
        index = 0
        while not self._interrupted.is_set():
            for entry in self._look():
                item = self._read(entry, index)
                if item is not None:
                    self._known.add(entry.key)
                    del self._waiting[entry.path]
                    index += 1
                    yield item
                    self._put_away(Path(entry.path))
                if self._interrupted.is_set():
                    return
            self._interrupted.wait(max(self.watched.every_s, _REST * self._took))

    def interrupt(self) -> None:
        """Makes `frames` end; may be called from any thread."""
        self._interrupted.set()

    def close(self) -> None:
        """Files are closed as soon as they are read: nothing to release."""
        self.interrupt()

    def _look(self) -> list[Entry]:
        """The files that have been the same for two looks, oldest first."""
        started = time.monotonic()
        try:
            unknown = self._known.look(list_images(self.watched.folder, self.watched.done))
            found = heapq.nsmallest(MOST_AT_ONCE, unknown, key=lambda e: (e.changed_ns, natural_key(Path(e.path))))
        except OSError as error:
            if self._away_since is None:
                self._away_since = started
                log.warning("%s: cannot be looked through (%s); waiting for it", self.name, error.strerror or error)
            return []
        if self._away_since is not None:
            log.info("%s: back after %.1f s", self.name, started - self._away_since)
            self._away_since = None
        now = time.monotonic()
        self._took = now - started
        if self._took > SLOW_LOOK_S:
            self._tell(
                f"{self.name}: a look at {self._known.count} images takes {self._took:.1f} s; "
                "remove scored ones, or have them moved with ?done=FOLDER"
            )
        before, self._waiting = self._waiting, {}
        for entry in found:
            key, since = before.get(entry.path, (entry.key, now))
            self._waiting[entry.path] = (key, since) if key == entry.key else (entry.key, now)
        return [entry for entry in found if before.get(entry.path, (None,))[0] == entry.key]

    def _read(self, entry: Entry, index: int) -> Frame | BadFrame | None:
        """The image; None while it may still be written, or when it has gone."""
        captured_at, started = time.time(), time.perf_counter()
        read = read_image(Path(entry.path), self.reading)
        if not isinstance(read, str):
            if _written_since(entry):
                return None  # its writer was not done: as it is now, it is read after the next looks, and only once
            return Frame(index, entry.path, captured_at, read, (time.perf_counter() - started) * 1e3)
        since = self._waiting[entry.path][1]
        if time.monotonic() - since < UNFINISHED_S or not Path(entry.path).exists():
            return None
        return BadFrame(index, entry.path, read)

    def _put_away(self, path: Path) -> None:
        """Moves a file that was read to where scored ones go."""
        if self.watched.done is None:
            return
        target = self.watched.done / path.relative_to(self.watched.folder)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target = target.with_name(f"{target.stem}-{time.time_ns()}{target.suffix}")
            shutil.move(path, target)
        except FileNotFoundError:
            pass  # somebody was faster
        except OSError as error:
            self._tell(f"{self.name}: scored images stay where they are: moving failed ({error.strerror or error})")

    def _tell(self, words: str) -> None:
        """Reports a thing once, whatever its numbers."""
        kind = words.partition(": ")[2][:12]
        if kind not in self._reported:
            self._reported.add(kind)
            log.warning("%s", words)


def _written_since(entry: Entry) -> bool:
    """Whether a file is another one than the look found; one that has gone is not."""
    try:
        return entry_of(entry.path, os.stat(entry.path)).key != entry.key  # noqa: PTH116  # the path as it was listed
    except OSError:
        return False
