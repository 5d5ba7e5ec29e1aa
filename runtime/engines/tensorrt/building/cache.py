"""Engines that were built on this machine, saved for the next start: verified, locked, bounded in size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kanoclip.runtime.engines.tensorrt.building.build import Serialized
from kanoclip.runtime.engines.tensorrt.building.key import EngineKey
from kanoclip.runtime.system.files.lock import Lock
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.paths import replace_file

LIMIT = 20 << 30
"""Bytes of engines; one of ViT-L/14@336 takes about 1."""
_ENGINE, _FACTS = ".engine", ".json"


@dataclass(frozen=True)
class BuiltEngine:
    """An engine and what was found out while it was built.

    Attributes:
        serialized: Its bytes.
        fp32_attention: Attention blocks that had to be computed in float32 to pass, by number.
        scored: Whether its answers were compared with the reference on this GPU.
    """

    serialized: Serialized
    fp32_attention: tuple[int, ...]
    compared: bool


class EngineCache:
    """A folder of engines. Whatever is wrong with it costs a build, never a wrong engine.

    Args:
        folder: Made when it is needed.
        limit: Bytes; the longest unused engines beyond it go.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit

    def get(self, key: EngineKey) -> BuiltEngine | None:
        """An engine of exactly this key, whole to the bit; None otherwise."""
        path = self._path(key)
        try:
            facts: Any = json.loads(read_small(path.with_suffix(_FACTS)))
            if facts["key"] != asdict(key) or path.stat().st_size != facts["size"]:
                return None
            found = BuiltEngine(
                mapped(path), tuple(int(number) for number in facts["fp32_attention"]), bool(facts["judged"])
            )
            if hashlib.sha256(found.serialized).hexdigest() != facts["sha256"]:
                return None
        except (OSError, ValueError, KeyError, TypeError):  # missing, or not what `put` writes
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # for the order in which engines go
        return found

    def put(self, key: EngineKey, built: BuiltEngine) -> None:
        """Keeps an engine.

        Raises:
            OSError: The folder cannot be written, or the disk is full; what was there before is whole.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        # Until the new facts are there, the old ones do not fit the new engine: it is a miss, not a mix.
        replace_file(path, built.serialized)
        facts = {
            "key": asdict(key),
            "size": built.serialized.nbytes,
            "sha256": hashlib.sha256(built.serialized).hexdigest(),
            "fp32_attention": list(built.fp32_attention),
            "judged": built.compared,
        }
        replace_file(path.with_suffix(_FACTS), json.dumps(facts, indent=2).encode())
        self._make_room(path)

    def discard(self, key: EngineKey) -> None:
        """Forgets an engine; one that cannot be removed is as good as gone, since its facts are looked at first."""
        for path in (self._path(key).with_suffix(_FACTS), self._path(key)):
            with contextlib.suppress(OSError):
                path.unlink()

    def get_or_build(
        self, key: EngineKey, build: Callable[[], BuiltEngine], waiting: Callable[[], None]
    ) -> tuple[BuiltEngine, str | None]:
        """Takes an engine from the cache, or builds it: once, however many processes ask for it at the same time.

        Args:
            key: Which.
            build: Makes it.
            waiting: Called once when another process is building it already.

        Returns:
            The engine, and why it could not be saved, if so: it works all the same.
        """
        if (found := self.get(key)) is not None:
            return found, None
        try:
            lock = self._lock(key, waiting)
        except OSError as error:
            return build(), self._warning(error)
        with lock:
            if (found := self.get(key)) is not None:
                return found, None  # the other process has made it meanwhile
            built = build()
            try:
                self.put(key, built)
            except OSError as error:
                return built, self._warning(error)
        return built, None

    def _lock(self, key: EngineKey, waiting: Callable[[], None]) -> Lock:
        """Takes the key's lock, when whoever has it is done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Lock(self._path(key).with_suffix(".lock"), leave=True, wait=waiting)

    def _warning(self, error: OSError) -> str:
        return (
            f"the engine cannot be saved in {self.folder} ({error.strerror or error}) and is built at every start: set "
            "XDG_CACHE_HOME to a folder with room"
        )

    def _make_room(self, newest: Path) -> None:
        engines = []
        for path in self.folder.glob(f"*{_ENGINE}"):
            with contextlib.suppress(OSError):
                engines.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in engines)
        for _, size, path in sorted(engines):
            if total <= self.limit:
                break
            if path != newest:
                for gone in (path.with_suffix(_FACTS), path):
                    with contextlib.suppress(OSError):
                        gone.unlink()
                total -= size

    def _path(self, key: EngineKey) -> Path:
        return self.folder / (key.stem + _ENGINE)


def mapped(path: Path) -> Serialized:
    """A file's content without reading it into memory of our own."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
