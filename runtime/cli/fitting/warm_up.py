"""`kanoclip-run --warm-up`: its options, and what becomes of what was learned."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.bundle.bundle import SUFFIX, Bundle
from kanoclip.runtime.bundle.store import check_place
from kanoclip.runtime.cli.run_options.fields import option
from kanoclip.runtime.cli.run_options.kinds import Number, PathName
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.learning.warm_up import LEAST_FRAMES, WarmUp, check_warm_up
from kanoclip.runtime.detect.learning.warmed_up import WarmedUp
from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.learn.job import Learned
from kanoclip.runtime.ops.learn.observe import Observed
from kanoclip.runtime.ops.learn.sheet import draw_sheet, write_jpeg
from kanoclip.runtime.stream.control.stream_control import StreamControl

log = logging.getLogger(__name__)

SHEET = "warm-up.jpg"
"""The contact sheet in a folder of snapshots."""


@dataclass(frozen=True)
class WarmUpOptions:
    """Learning from the first frames: `[learn]`."""

    warm_up: int | None = option(
        "--warm-up",
        Number(LEAST_FRAMES, whole=True),
        None,
        "Learn the part from the first N frames, of which no one knows whether they are good: the odd ones are left "
        "out. Until then scores are zero-shot ones.",
        metavar="N",
    )
    sheet: Path | None = option(
        "--warm-up-sheet",
        PathName(),
        None,
        f"Show the frames of the warm-up and what was left out. Default: {SHEET} in the folder of --snapshots.",
        metavar="FILE.jpg",
    )
    save: Path | None = option(
        "--warm-up-save",
        PathName(),
        None,
        "Write what was learned into a copy of the bundle. Default: it is gone after the run.",
        metavar="NAME.kanoclip",
    )

    def check(self, max_frames: int | None) -> None:
        """Refuses what makes no sense, before anything is loaded.

        Args:
            max_frames: How many frames are scored at most; None for no limit.

        Raises:
            click.UsageError: The message names the flag.
        """
        for flag, path, suffixes in (
            ("--warm-up-sheet", self.sheet, (".jpg", ".jpeg")),
            ("--warm-up-save", self.save, (SUFFIX,)),
        ):
            if path is None:
                continue
            if self.warm_up is None:
                raise click.UsageError(f"{flag} is for what is learned: give --warm-up N as well")
            if path.suffix.lower() not in suffixes:
                raise click.UsageError(f"{flag} {path}: its name must end in {suffixes[0]}")
        if self.warm_up is not None and max_frames is not None and max_frames < self.warm_up:
            raise click.UsageError(
                f"--max-frames {max_frames} ends the run before --warm-up {self.warm_up} has its frames"
            )

    def check_bundle(self, detector: Detector, class_name: str) -> None:
        """Refuses what cannot work with the bundle, before a source is opened.

        Args:
            detector: What scores.
            class_name: The class looked for.

        Raises:
            KanoclipError: The bundle takes no memory or has one, or the copy cannot be written.
        """
        if self.warm_up is not None:
            check_warm_up(detector, class_name, self.warm_up)
            if self.save is not None:
                check_place(detector.bundle.root, self.save)


class LineWarmUp:
    """The warm-up of a run.

    Args:
        options: With a number of frames.
        detector: What scores.
        control: Of the stream.
        class_name: The class looked for at first.
        snapshots: The folder of snapshots; None for none.

    Attributes:
        learner: For `Pipeline.learn_by`.
    """

    def __init__(
        self,
        options: WarmUpOptions,
        detector: Detector,
        control: StreamControl,
        class_name: str,
        snapshots: Path | None,
    ) -> None:
        assert options.warm_up is not None
        self._frames, self._control, self._class_name = options.warm_up, control, class_name
        self._sheet = options.sheet or (None if snapshots is None else snapshots / SHEET)
        self._save = options.save
        self._is_saved = False
        self._classes: dict[str, dict[str, Any]] = {}
        self.learner = WarmUp(detector, options.warm_up, control.use_memory, self._learned)

    @classmethod
    def of(
        cls,
        options: WarmUpOptions,
        detector: Detector,
        control: StreamControl,
        class_name: str,
        snapshots: Path | None,
    ) -> LineWarmUp | None:
        """As the class is made; None where there is to be none."""
        return None if options.warm_up is None else cls(options, detector, control, class_name, snapshots)

    def finish(self) -> None:
        """The run has ended; see `WarmUp.finish`."""
        self.learner.finish()

    def as_json(self) -> dict[str, Any]:
        """`warm_up` of the run's summary: how many frames it takes, and each class that was learned."""
        return {"warm_up": {"frames": self._frames, "classes": self._classes}}

    def _learned(self, found: WarmedUp) -> None:
        """Writes sheet and copy; one that fails leaves the other.

        Raises:
            BundleError: The copy cannot be written.
        """
        result = {
            "left_out": list(found.left_out),
            "patches_left_out": found.selection.cells_left_out,
            "references": len(found.memory.names),
            "rows": len(found.memory.rows),
            "threshold": found.thresholds.image,
            "pixel_threshold": found.thresholds.pixel,
            "origin": found.thresholds.origin,
            "sheet": None,
            "saved_to": None,
        }
        self._classes[found.class_name] = result
        if self._sheet is not None:
            path = self._sheet if found.class_name == self._class_name else _named(self._sheet, found.class_name)
            try:
                write_jpeg(path, draw_sheet(_as_learned(found)))
                result["sheet"] = str(path)
                log.info("warm-up: its frames are shown in %s", path)
            except SinkError as error:
                log.warning("warm-up: %s", error)
        if self._save is not None:
            self._save_to(self._save, found)
            result["saved_to"] = str(self._save)

    def _save_to(self, path: Path, found: WarmedUp) -> None:
        """The first class makes the copy, and further ones go into it."""
        if not self._is_saved:
            self._control.save_memory(path, found.class_name)
            self._is_saved = True
            return
        from kanoclip.runtime.detect.reference.stored.history import put

        put(Bundle.open(path), None, found.class_name, found.memory, found.thresholds)
        log.info("the memory of %s is saved in %s", found.class_name, path)


def _named(path: Path, class_name: str) -> Path:
    """Another class's own file."""
    return path.with_stem(f"{path.stem}-{re.sub(r'[^A-Za-z0-9._-]', '_', class_name)}")


def _as_learned(found: WarmedUp) -> Learned:
    """As `kanoclip-learn` has it."""
    frames = Observed(found.references, found.sizes, found.thumbnails, ())
    used = found.selection.frames.nonzero()[0]
    return Learned(found.memory, frames, used, (), found.selection)
