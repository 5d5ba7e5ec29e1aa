"""The command line of `kanoclip-eval`, as the parts of the command take it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.sources.files.reading import Reading

if TYPE_CHECKING:
    from kanoclip.train.model.kanoclip import Prompts


@dataclass(frozen=True)
class Options:
    """The command line; what each means is in its option's help."""

    bundle: Path | None
    checkpoint: Path | None
    prompts: Prompts | None
    backbone: str | None
    weights: str
    image_size: int | None
    no_vv: bool
    windows: bool
    sigma: float | None
    suite_file: Path | None
    dataset: str
    root: Path
    categories: tuple[str, ...]
    class_name: str | None
    batch_size: int
    backend: str
    device: str
    threads: int | None
    output: Path | None
    csv_file: Path | None
    markdown_file: Path | None
    sheet: Path | None
    sheet_cases: int
    compare: str | None
    skip_bad: bool
    shots: tuple[int, ...]
    unlabelled: int | None
    share: float
    draws: int
    tiles: TileGrid | str | None
    rate: float
    ablation: bool
    train_dataset: str | None
    train_root: Path | None
    train_categories: tuple[str, ...]
    epochs: int
    seed: int
    reading: Reading
    checkpoints: Path | None
    training: tuple[str, ...]
    as_json: bool
    quiet: bool
