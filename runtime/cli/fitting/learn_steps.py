"""The steps of `kanoclip-learn` that have to do with files, engines and the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.cli.fitting.frames import Frames, by_group
from kanoclip.runtime.cli.fitting.learn_options import AUTO, LearnOptions
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.steps import Steps
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.reference.memory import ReferenceMemory
from kanoclip.runtime.detect.settings.roi_file import write_roi
from kanoclip.runtime.detect.tiles import parse_grid
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.learn.first_frame import FirstFrame
from kanoclip.runtime.ops.learn.job import Mask, part_of, score
from kanoclip.runtime.ops.learn.observe import Observed, Observer, observe, plain, suited_tiles
from kanoclip.runtime.sources import Source
from kanoclip.runtime.types import BadFrame, RegionOfInterest

Values = npt.NDArray[np.float64]


@contextmanager
def zero_shot_detector(bundle: Bundle, options: LearnOptions) -> Iterator[Detector]:
    """A detector that looks at frames without a memory."""
    whole = plain(bundle)
    with builds_shown(Console(stderr=True, quiet=options.quiet)) as build_report:
        backend = create_backend(whole, options.backend, options.device, options.threads, build_report, 1)
    with Detector(whole, backend) as detector:
        yield detector


def tiles_of(bundle: Bundle, options: LearnOptions, first: FirstFrame | None) -> TileGrid | None:
    """How frames are cut; None for the whole frame.

    Args:
        bundle: Which.
        options: With --tiles or without.
        first: Good frames, the first of which chooses tiles that are `auto`; None where they are not.

    Raises:
        SettingsError: --tiles is no such thing.
        SourceError: The source failed.
    """
    size = None if first is None else first.size()
    if size is not None:
        return suited_tiles(bundle.manifest, *size)
    if options.tiles is None or options.tiles == AUTO:
        return bundle.manifest.tiles
    # A single tile is the whole frame, which is worth naming where a bundle has tiles.
    return None if options.tiles == "1x1" else parse_grid(options.tiles)


def look(source: Source, observer: Observer, options: LearnOptions, steps: Steps) -> Observed:
    """Looks at the good frames, and closes the source."""
    return observe(
        source,
        observer,
        most=options.most,
        on_frame=lambda done, total: steps.show("good frames", done, total),
    )


def bad_scores(
    memory: ReferenceMemory, observer: Observer, inside: Mask | None, frames: Frames, steps: Steps
) -> dict[str, Values]:
    """Scores of bad frames by what they show; none without bad frames. Closes their source.

    Raises:
        CalibrationError: There are bad frames, and none can be read.
    """
    source = frames.bad
    if source is None:
        return {}
    names, scores = [], []
    try:
        for number, item in enumerate(source.frames(), 1):
            if isinstance(item, BadFrame):
                continue
            names.append(item.source)
            scores.append(score(observer.look(item.image, views=False), memory, observer.grid, inside))
            steps.show("bad frames", number, source.count)
    finally:
        source.close()
    if not names:
        raise CalibrationError(f"{source.name}: no bad image in it can be read")
    return by_group(frames.groups, names, scores)


def find_part(observed: Observed, path: Path, dry_run: bool, human: Console) -> RegionOfInterest | None:
    """Finds the part and writes its region; None where there is no background.

    Raises:
        CalibrationError: Frames are cut into tiles.
        SettingsError: The file cannot be written.
    """
    part = part_of(observed)
    if not part.found:
        human.print(Text("no background was found: the part fills the frame, and all of it is scored"))
        return None
    region = part.region(path.name)
    if not dry_run:
        write_roi(path, region)
    share = float(part.usual().mean())
    human.print(Text(f"the part takes {share:.0%} of the frame: {path}, which kanoclip-run needs as --roi"))
    return region
