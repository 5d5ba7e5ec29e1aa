"""What the graph takes: how many frames at once, a camera's whole ones or their tiles, and a reference memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.cli.options import Command, with_options
from kanoclip.runtime.cli.run_options.kinds import Decimal

if TYPE_CHECKING:
    from kanoclip.runtime.bundle.manifest.tiles import TileGrid

AUTO = "auto"


@dataclass(frozen=True)
class FrameOptions:
    """The graph's inputs; what each means is in its option's help. `camera_size` is (height, width)."""

    batch: int | None
    dynamic_batch: int | None
    camera_size: tuple[int, int] | None
    memory_rows: int
    tiles: str | None
    overlap: float | None

    @property
    def shared(self) -> float:
        """Share of a tile's side that it has in common with its neighbour."""
        from kanoclip.runtime.detect.tiles import OVERLAP

        return OVERLAP if self.overlap is None else self.overlap

    def grid(self) -> TileGrid | None:
        """The tiles that the flags name; None for whole frames, and for `auto`, which images decide.

        Raises:
            KanoclipError: They are none.
        """
        from kanoclip.runtime.detect.tiles import parse_grid

        return None if self.tiles is None or self.tiles == AUTO else parse_grid(self.tiles, self.shared)

    def at_once(self, grid: TileGrid | None) -> int:
        """Frames or tiles of a batch, at most.

        Together in one run, a frame's tiles take no longer than one by one (docs/measurements.md).
        """
        return self.dynamic_batch or self.batch or (1 if grid is None else grid.count)

    def check_batch(self) -> None:
        """Refuses two kinds of batch.

        Raises:
            click.UsageError: Both are given.
        """
        if self.batch is not None and self.dynamic_batch is not None:
            raise click.UsageError("--batch and --dynamic-batch exclude each other.")

    def check_tiles(self, parity_images: Path | None) -> None:
        """Refuses tiles that do not go with the other flags.

        Args:
            parity_images: Whose shape decides about `--tiles auto`.

        Raises:
            click.UsageError: So it is.
        """
        if self.overlap is not None and self.tiles is None:
            raise click.UsageError("--overlap needs --tiles.")
        if self.tiles is not None and self.camera_size is not None:
            raise click.UsageError("--camera-size and --tiles exclude each other: such a graph sees the whole frame.")
        if self.tiles == AUTO and parity_images is None:
            raise click.UsageError("--tiles auto needs --parity-images: name frames such as the camera will give.")


def _camera_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """(height, width), from WIDTHxHEIGHT as cameras have it."""
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 16384 and 0 < int(height) <= 16384):
        raise click.BadParameter(f"{value!r} is not WIDTHxHEIGHT in pixels, such as 1920x1080.")
    return int(height), int(width)


_OPTIONS = (
    click.option(
        "--batch", type=click.IntRange(min=1), metavar="N", help="Static batch size. Default: 1, or one frame's tiles."
    ),
    click.option("--dynamic-batch", type=click.IntRange(min=2), metavar="MAX", help="Any batch from 1 to MAX."),
    click.option(
        "--camera-size",
        metavar="WIDTHxHEIGHT",
        callback=_camera_size,
        help="Resize in the graph, for a GPU: it takes the camera's whole frame, such as 1920x1080.",
    ),
    click.option(
        "--memory-rows",
        type=click.IntRange(min=0, max=16384),
        default=1024,
        show_default=True,
        metavar="N",
        help="Most rows of a reference memory, which kanoclip-learn fills; 0 for a graph that takes none.",
    ),
    click.option(
        "--tiles",
        metavar="ROWSxCOLUMNS|auto",
        help="Cut each frame into tiles, each of which the graph sees in full: for long parts and small defects. auto: "
        "by the shape of --parity-images. An inference takes as many times longer. Default: the whole frame.",
    ),
    click.option(
        "--overlap",
        type=Decimal(0, 0.5),
        metavar="SHARE",
        help="Of a tile's side that it shares with its neighbour, up to 0.5. Default: 0.15.",
    ),
)


def frame_options(command: Command) -> Command:
    """Adds the flags to a command."""
    return with_options(command, _OPTIONS)
