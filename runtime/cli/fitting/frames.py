"""The good and bad frames that `kanoclip-learn` and `kanoclip-calibrate` are given."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kanoclip.runtime.cli.fitting.fit_options import FitOptions
from kanoclip.runtime.errors import SourceError, printable
from kanoclip.runtime.ops.calibration.curves import draw_curves
from kanoclip.runtime.ops.calibration.gather import EveryNth
from kanoclip.runtime.ops.calibration.plot import Histogram, draw_histograms, write_png
from kanoclip.runtime.sources import ImageSource, Source, open_camera, open_source
from kanoclip.runtime.sources.files.labels import GOOD_FOLDERS, Groups, by_label

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """What was given.

    Attributes:
        good: Good frames.
        bad: Frames that should be found; None without any.
        groups: Tells what bad frames show.
        notes: What was made of the folders, each in a line.
    """

    good: Source
    bad: Source | None
    groups: Groups
    notes: tuple[str, ...]

    @property
    def in_sequence(self) -> bool:
        """Whether the good frames came one after the other, as a camera's and a video's do."""
        return self.good.root is None

    def close(self) -> None:
        """Closes both; for any number of times."""
        self.good.close()
        if self.bad is not None:
            self.bad.close()


def open_frames(options: FitOptions) -> Frames:
    """Opens good and bad frames before anything that takes long.

    A folder with one called good in it tells good from bad by itself.

    Raises:
        SourceError: One cannot be opened.
    """
    if options.camera is not None:
        return _given(options, EveryNth(open_camera(options.camera, reading=options.reading), options.every))
    spec = options.source or ""
    folder = Path(spec).expanduser()
    opened = open_source(spec, reading=options.reading)
    labelled = by_label(opened) if isinstance(opened, ImageSource) and folder.is_dir() else None
    if labelled is None:
        return _given(options, EveryNth(opened, options.every), _unsaid(spec, folder))
    good = EveryNth(labelled.good, options.every)
    shown = printable(str(folder))
    count = len(labelled.good.paths)
    notes = [f"{shown}: {count} good image{'s' * (count > 1)} by the folders' names"]
    if labelled.left_out:
        notes.append(f"{shown}: {labelled.left_out} images beside no folder called good are left out")
    if options.bad is not None:
        return _given(options, good, [*notes, f"of what is bad, only {printable(options.bad)} is used"])
    if labelled.bad is not None:
        names = sorted(set(labelled.groups.known.values()))
        notes[0] += f", {len(labelled.bad.paths)} bad ones ({printable(', '.join(names))})"
    return Frames(good, labelled.bad, labelled.groups, tuple(notes))


def by_group(groups: Groups, names: Iterable[str], scores: Iterable[float]) -> dict[str, Values]:
    """Scores of bad frames by what they show."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, score in zip(names, scores, strict=True):
        found[groups.of(name)].append(score)
    return {name: np.array(values, np.float64) for name, values in sorted(found.items())}


def draw_scores(path: Path, panels: list[Histogram], good: Values, bad: dict[str, Values]) -> None:
    """Draws how scores lie, and with bad frames how many of them each false-alarm rate finds.

    Raises:
        SinkError: The file cannot be written.
    """
    image = draw_histograms(panels)
    write_png(path, np.concatenate([image, draw_curves(good, bad)]) if bad else image)


def _given(options: FitOptions, good: Source, notes: Iterable[str] = ()) -> Frames:
    """Good frames, and the bad ones that a flag names; what lies in a folder called good there is none.

    Raises:
        SourceError: The bad ones cannot be opened, or all of them lie in folders called good.
    """
    if options.bad is None:
        return Frames(good, None, Groups(None), tuple(notes))
    bad = open_source(options.bad, reading=options.reading)
    labelled = by_label(bad) if isinstance(bad, ImageSource) and Path(options.bad).expanduser().is_dir() else None
    if labelled is None:
        return Frames(good, bad, Groups(bad.root), tuple(notes))
    shown, count = printable(options.bad), len(labelled.good.paths)
    if labelled.bad is None:
        raise SourceError(f"{shown}: all of its {count} images lie in folders called good: name the folder of bad ones")
    note = f"{shown}: {count} image{'s' * (count > 1)} in folders called good are not taken as bad"
    return Frames(good, labelled.bad, labelled.groups, (*notes, note))


def _unsaid(spec: str, folder: Path) -> list[str]:
    """A line where folders have names, and none of them says that its images are good."""
    if not _is_folder(folder) or folder.resolve().name.lower() in GOOD_FOLDERS:
        return []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        return []
    shown = printable(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))
    return [f"{printable(spec)}: no folder in it is called good, so all its images ({shown}) are taken as good ones"]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
