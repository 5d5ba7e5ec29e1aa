"""Several sources in one run, each with its own name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.base import Source, WrappedSource
from kanoclip.runtime.types import BadFrame, Frame

_LONGEST = 60


class NamedSource(WrappedSource):
    """A source whose frames carry its name.

    Args:
        source: The source that it reads, and closes with itself.
        name: Its name, which differs from the others'.
    """

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(source)
        self._name = name

    @property
    def name(self) -> str:
        """Its own name."""
        return self._name

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields the images with the source's name in `stream`, and in `source` where that is no file."""
        given = self._source.name
        for item in self._source.frames():
            yield replace(item, stream=self.name, source=self.name if item.source == given else item.source)


def together(sources: Sequence[Source]) -> list[Source]:
    """Makes sources fit for one run: a single one stays as it is, several get names that differ.

    Raises:
        SourceError: Some are live, which must not wait, and others are not, which must lose nothing.
    """
    if len(sources) == 1:
        return list(sources)
    live = [source.name for source in sources if source.live]
    if 0 < len(live) < len(sources):
        other = next(source.name for source in sources if not source.live)
        raise SourceError(f"{live[0]} is live and {other} is not: run them one after the other, or in two processes")
    names = distinct([source.name for source in sources])
    return [NamedSource(source, name) for source, name in zip(sources, names, strict=True)]


def distinct(names: Sequence[str]) -> list[str]:
    """The names, each that repeats an earlier one with a number after it."""
    taken = set(names)
    seen: set[str] = set()
    found = []
    for name in names:
        chosen, number = name, 2
        while chosen in seen or (chosen != name and chosen in taken):
            chosen, number = f"{name} ({number})", number + 1
        seen.add(chosen)
        found.append(chosen)
    return found


def file_names(names: Sequence[str]) -> dict[str, str]:
    """For each source name, a name for a file or folder; these differ too, even without regard to case.

    Letters, digits, dots, dashes and underscores stay. Of a path only the last part is used, of a URL what follows
    `://` and the credentials.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name in names:
        _, url, rest = name.rpartition("://")
        shown = rest.rpartition("@")[2] if url else Path(name).stem
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", shown)[:_LONGEST].strip("-.") or "source"
        chosen, number = plain, 2
        while chosen.lower() in seen:
            chosen, number = f"{plain}-{number}", number + 1
        seen.add(chosen.lower())
        found[name] = chosen
    return found
