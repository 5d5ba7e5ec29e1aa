"""Good from bad by the names of folders: what lies in one called `good` is good, what lies beside it is bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kanoclip.runtime.sources.files.images import ImageSource

GOOD_FOLDERS = frozenset({"good", "ok", "normal"})
"""Names of folders of good images, in any case."""
NO_FOLDER = "frames"
"""Name of the group of frames that are no files."""


@dataclass(frozen=True)
class Labelled:
    """The images of a folder that tells good from bad.

    Attributes:
        good: Images of the folders called good, at least one.
        bad: Images of the folders beside them; None where there is none.
        groups: How bad images are grouped.
        left_out: Images of which no folder says what they are.
    """

    good: ImageSource
    bad: ImageSource | None
    groups: Groups
    left_out: int


@dataclass(frozen=True)
class Groups:
    """The defect that a bad image shows, by the folder that it lies in.

    Attributes:
        root: Folder of the source; None for one that has no files.
        known: Groups by path, where they are not those of the first folder below the root.

    Examples:
        >>> groups = Groups(Path("test"), {})
        >>> groups.of("test/crack/1.png"), groups.of("test/1.png")
        ('crack', 'test')
    """

    root: Path | None
    known: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        """The group of a frame; that of a file in no folder below the root has the root's name."""
        if name in self.known:
            return self.known[name]
        if self.root is None:
            return NO_FOLDER
        parts = Path(name).relative_to(self.root).parts if Path(name).is_relative_to(self.root) else ()
        return parts[0] if len(parts) > 1 else self.root.resolve().name or NO_FOLDER


def by_label(images: ImageSource) -> Labelled | None:
    """Tells the images of a folder apart.

    `good/` and `crack/` may lie in the folder itself, as in the `test` of an MVTec tree, or below it, as in the tree
    itself: then all of its folders called good count.

    Args:
        images: Of a folder, which is their root.

    Returns:
        None where no folder below it is called good: nothing says what its images are.
    """
    folder, paths, reading = images.root or Path(), images.paths, images.reading
    parts = [path.relative_to(folder).parts[:-1] for path in paths]
    places = [_good_at(one) for one in parts]
    # Folders that hold one called good: what lies in another folder there is bad.
    holders = {one[:place] for one, place in zip(parts, places, strict=True) if place is not None}
    if not holders:
        return None
    known: dict[str, str] = {}
    for path, one, place in zip(paths, parts, places, strict=True):
        depth = next((n for n in range(len(one) - 1, -1, -1) if one[:n] in holders), None)
        if place is None and depth is not None:
            known[str(path)] = one[depth]
    good = [path for path, place in zip(paths, places, strict=True) if place is not None]
    bad = [path for path in paths if str(path) in known]
    return Labelled(
        ImageSource(good, folder, str(folder), reading),
        ImageSource(bad, folder, str(folder), reading) if bad else None,
        Groups(folder, known),
        len(paths) - len(good) - len(bad),
    )


def _good_at(folders: tuple[str, ...]) -> int | None:
    """Which of the folders above an image is the first one called good."""
    return next((place for place, name in enumerate(folders) if name.lower() in GOOD_FOLDERS), None)
