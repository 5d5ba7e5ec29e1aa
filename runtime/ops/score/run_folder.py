"""A run's own folder beside its table: the work list, what the run is, and a file for each slice that is done.

A slice is done when its file has its name, which it gets in one step once it is on disk. There is no other record of
progress that could disagree with that.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.score.listing import Item
from kanoclip.runtime.ops.score.scorer import Part
from kanoclip.runtime.ops.score.table import parquet
from kanoclip.runtime.ops.score.work import Slice, WorkList, read_slice
from kanoclip.runtime.system.files.leftovers import sweep_numbered
from kanoclip.runtime.system.files.lock import Lock, LockedError
from kanoclip.runtime.system.files.own import mark_folder
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.paths import UNFINISHED, replace_file

GOES_ON = "what is done is saved: the same command goes on from there"
SUFFIX = ".run"
SCHEMA = 1
_RUN, _LIST, _PARTS, _LOCK = "run.json", "pictures", "parts", "lock"
MAPS_OF = ".kanoclip-maps"


@dataclass(frozen=True)
class Identity:
    """All that a table depends on: a run goes on only where none of it has changed.

    Attributes:
        list_sha256: Of the work list.
        pictures: In it.
        slice: Images in a slice.
        bundle: The bundle's name.
        bundle_sha256: Of its manifest.
        backend: As `create_backend` takes it; `auto` before it is settled.
        device: `cpu`, `cuda`, or `auto` before it is settled and on a server; which GPU does not matter.
        threads: Of one engine.
        class_name: Of images whose work list names none.
        decisions: Thresholds, smallest area and digest of the region of interest, by class.
        maps: Whether whole maps are saved.
        reading: How images are read.
        version: Of this package.
        schema: Of this and of the table.
    """

    list_sha256: str
    pictures: int
    slice: int
    bundle: str
    bundle_sha256: str
    backend: str
    device: str
    threads: int
    class_name: str
    decisions: Mapping[str, Any]
    maps: bool
    reading: Mapping[str, Any]
    version: str
    schema: int = SCHEMA

    def as_json(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    def differs(self, stored: Mapping[str, Any]) -> list[str]:
        """What is not as it was stored, each `NAME (BEFORE, now NOW)`."""
        own = json.loads(json.dumps(self.as_json()))
        if own["list_sha256"] != stored.get("list_sha256"):  # which is all that a person understands of it
            return [f"the images ({stored.get('pictures')}, now {self.pictures})"]
        now, before = _flat(own), _flat(stored)
        return [f"{name} ({before.get(name)}, now {value})" for name, value in now.items() if value != before.get(name)]


class RunFolder:
    """The folder of one run.

    Args:
        output: The table that the run makes; the folder is beside it, with `.run` at the end of its name.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.root = output.with_name(output.name + SUFFIX)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder, and keeps others out of it while the block lasts.

        Raises:
            SinkError: Somebody is in it, or it cannot be made.
        """
        try:
            self.root.mkdir(exist_ok=True)
            (self.root / _PARTS).mkdir(exist_ok=True)
            lock = Lock(self.root / _LOCK, leave=True)
        except LockedError:
            raise SinkError(f"{self.output} is being made by another kanoclip-score: wait for it") from None
        except OSError as error:
            raise SinkError(f"{self.root} cannot be written ({error.strerror}): choose another --output") from error
        with lock:
            sweep_numbered(self.output)
            yield

    @property
    def list_path(self) -> Path:
        """The work list."""
        return self.root / _LIST

    def stored(self) -> dict[str, Any] | None:
        """What the run is that was begun here; None where none was.

        Raises:
            SinkError: It cannot be read.
        """
        try:
            value = json.loads(read_small(self.root / _RUN))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise SinkError(f"{self.root / _RUN} cannot be read ({error}): begin anew with --restart") from error
        if not isinstance(value, dict):
            raise SinkError(f"{self.root / _RUN} is damaged: begin anew with --restart")
        return value

    def begin(self, identity: Identity, maps: Path | None = None) -> None:
        """Says what the run is, and marks the folder of its maps as no source of images.

        Raises:
            SinkError: The folder of maps cannot be written, or holds another table's.
        """
        if maps is not None:
            try:
                maps.mkdir(parents=True, exist_ok=True)
                self._take(maps)
                mark_folder(maps)
            except OSError as error:
                raise SinkError(f"{maps} cannot be written ({error.strerror}): choose another --maps") from error
        replace_file(self.root / _RUN, json.dumps(identity.as_json(), indent=1).encode(), durable=True)

    def _take(self, maps: Path) -> None:
        """Says whose maps a folder holds, which have the same names for every table.

        Raises:
            SinkError: Those of another table that is still there, or being made.
            OSError: The folder cannot be written.
        """
        with suppress(FileNotFoundError, ValueError):
            other = RunFolder(Path(os.fsdecode(read_small(maps / MAPS_OF))))
            if (other.output.exists() or other.root.exists()) and other.output.resolve() != self.output.resolve():
                raise SinkError(f"{maps} holds the maps of {other.output}: choose another --maps")
        replace_file(maps / MAPS_OF, os.fsencode(self.output.absolute()))

    def forget(self) -> None:
        """Throws away what was begun."""
        (self.root / _RUN).unlink(missing_ok=True)
        shutil.rmtree(self.root / _PARTS)
        (self.root / _PARTS).mkdir()

    def part_path(self, number: int) -> Path:
        """Where a slice's rows are, or will be."""
        return self.root / _PARTS / f"{number:08}.parquet"

    def done(self, work: WorkList, maps: Path | None) -> set[int]:
        """Slices whose rows are there and whole; files that are not are taken away, unfinished maps too."""
        for left in maps.rglob(UNFINISHED) if maps is not None else ():
            left.unlink(missing_ok=True)
        found = set()
        for number in range(work.slices):
            path = self.part_path(number)
            if not path.exists():
                continue
            if _rows_in(path) == work.slice(number).count:
                found.add(number)
            else:  # the disk lost what it said it had: power went
                path.unlink()
        return found

    def commit(self, part: Part, maps: Path | None) -> None:
        """Keeps a slice's rows. The maps come first: whoever finds rows finds their maps.

        Raises:
            SinkError: The disk is full, or something else is wrong with it.
        """
        try:
            for name, content in part.maps.items():
                assert maps is not None
                path = maps / name
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, content)
            replace_file(self.part_path(part.number), part.table, durable=True)
        except OSError as error:
            raise SinkError(f"{error.filename or self.root} cannot be written ({error.strerror}); {GOES_ON}") from error

    def items(self, where: Slice) -> list[Item]:
        """The images of a slice."""
        return read_slice(self.list_path, where)

    def remove(self) -> None:
        """Takes the folder away."""
        shutil.rmtree(self.root)


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """With a name of its own for each class's decisions, such as `threshold of bottle`."""
    found = dict(identity)
    decisions = found.pop("decisions", None)
    for class_name, decided in (decisions if isinstance(decisions, dict) else {}).items():
        if isinstance(decided, dict):
            found |= {f"{name} of {class_name}": value for name, value in decided.items()}
    return found


def _rows_in(path: Path) -> int | None:
    """Rows of a Parquet file; None where it is none."""
    try:
        with parquet().ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, ValueError):
        return None
