"""What the frozen stem makes of the generated images, drawn once and read by every step of pretraining.

The trunk is the slow part of a step, and it does not learn: 8,000 images are drawn and read in six minutes on 2 cores,
and every run of pretraining, of any seed, reads the same files.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.sources.files.images import ImageSource
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.model.stem.stem import ConvStem
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.scenes.scene import Recipe, generate
from kanoclip.train.nano.stem_statistics import load_stem, trunk_pixels

CHUNK = 250
"""Images in a file; what a stop loses is one of them for each process."""
_BATCH = 25
RECORD = "record.json"
"""There once all images are."""
DRAWING = "drawing.json"
"""There from the start: what a stopped drawing goes on with must be the same."""


@dataclass(frozen=True)
class TokenBatch:
    """Images of a step.

    Attributes:
        tokens: What the stem's projection reads, float32 [B, P, channels].
        share: Share of each cell's pixels that are anomalous, float32 [B, rows, columns].
        anomalous: Whether any pixel is, float32 [B].
        words: Each image's subject.
        captions: Each image's caption.
    """

    tokens: Tensor
    share: Tensor
    anomalous: Tensor
    words: list[str]
    captions: list[str]


class TokenFiles:
    """The files of a folder as one indexed set."""

    def __init__(self, folder: Path) -> None:
        """Opens what `draw_tokens` wrote.

        Raises:
            TrainingError: The folder has none, or they are not complete.
        """
        record = folder / RECORD
        if not record.is_file():
            raise TrainingError(f"{folder} has no drawn images: python -m kanoclip.train.nano.make draws them")
        try:
            self.record = json.loads(record.read_text())
            self.length = int(self.record["images"])
            names = [_name(start) for start in range(0, self.length, CHUNK)]
            self.tokens = [np.load(folder / f"{name}-tokens.npy", mmap_mode="r") for name in names]
            self.share = [np.load(folder / f"{name}-share.npy") for name in names]
            self.texts = [text for name in names for text in json.loads((folder / f"{name}.json").read_text())]
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f"{folder} is not complete ({error}): the command that made it goes on") from error

    def __len__(self) -> int:
        """Number of images."""
        return self.length

    def batch(self, indices: Sequence[int]) -> TokenBatch:
        """Images by number."""
        places = [divmod(index, CHUNK) for index in indices]
        tokens = np.stack([self.tokens[chunk][row] for chunk, row in places]).astype(np.float32)
        share = torch.from_numpy(np.stack([self.share[chunk][row] for chunk, row in places]).astype(np.float32))
        texts = [self.texts[index] for index in indices]
        return TokenBatch(
            torch.from_numpy(tokens),
            share,
            (share.flatten(1).amax(1) > 0).float(),
            [text["words"] for text in texts],
            [text["caption"] for text in texts],
        )


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes:
        recipe: Of the images.
        seed: Of the images.
        images: How many.
        photos: Folder of photographs; None for painted textures alone.
        stem: File of `stem_statistics`.
    """

    recipe: Recipe
    seed: int
    images: int
    photos: Path | None
    stem: Path


def draw_tokens(folder: Path, drawing: Drawing, workers: int) -> Iterator[int]:
    """Draws what is not there yet; yields the number of images that are there after each file.

    Args:
        folder: Where to; the record in it comes last.
        drawing: What.
        workers: Processes, each with one thread.

    Raises:
        TrainingError: The photographs or the stem are no good, or the folder has images of another drawing.
    """
    starts = range(0, drawing.images, CHUNK)
    waiting = [start for start in starts if not (folder / f"{_name(start)}.json").exists()]
    done = drawing.images - sum(min(CHUNK, drawing.images - start) for start in waiting)
    load_stem(drawing.stem)  # refuses here, not in each process
    if waiting and drawing.photos is not None:
        Photos.from_folder(drawing.photos)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, drawing, with_photos=bool(waiting))
    jobs = [(folder, drawing, start) for start in waiting]
    if jobs:
        # A fork of a process in which OpenCV or torch has threads can wait for ever.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for drawn in pool.imap_unordered(_draw_chunk, jobs):
                done += drawn
                yield done
    replace_file(folder / RECORD, json.dumps(_record(drawing), indent=2).encode())


def _record(drawing: Drawing) -> dict[str, Any]:
    return {**asdict(drawing.recipe), "seed": drawing.seed, "images": drawing.images}


def _claim(folder: Path, drawing: Drawing, *, with_photos: bool) -> None:
    """Writes down what a folder's images are drawn from, and refuses a folder of other ones."""
    mine = {**_record(drawing), "stem": hashlib.sha256(drawing.stem.read_bytes()).hexdigest()}
    if with_photos:
        mine["photographs"] = _photographs(drawing.photos)
    mine = json.loads(json.dumps(mine))  # lists, as they are read back
    for path in (folder / DRAWING, folder / RECORD):
        known = json.loads(path.read_text()) if path.is_file() else {}
        wrong = [key for key, value in known.items() if key in mine and mine[key] != value]
        if wrong:
            raise TrainingError(f"{folder} has images of another drawing ({wrong[0]} differs): name another folder")
    if not (folder / DRAWING).is_file():
        replace_file(folder / DRAWING, json.dumps(mine, indent=2).encode())


def _photographs(folder: Path | None) -> str | None:
    """Digest of which photographs a folder has; another one changes what every image is drawn from."""
    if folder is None:
        return None
    paths = ImageSource.from_folder(folder).paths
    names = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in paths]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _draw_chunk(job: tuple[Path, Drawing, int]) -> int:
    folder, drawing, start = job
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    stem = load_stem(drawing.stem)
    photos = Photos.from_folder(drawing.photos) if drawing.photos is not None else None
    numbers = range(start, min(start + CHUNK, drawing.images))
    tokens, shares, texts = [], [], []
    for first in range(0, len(numbers), _BATCH):
        scenes = [generate(drawing.recipe, drawing.seed, i, photos) for i in numbers[first : first + _BATCH]]
        tokens.append(_compared(stem, np.stack([scene.image for scene in scenes])))
        shares += [_cell_share(scene.mask, stem.grid) for scene in scenes]
        texts += [{"words": scene.words, "caption": scene.caption} for scene in scenes]
    name = _name(start)
    _save_array(folder / f"{name}-tokens.npy", np.concatenate(tokens))
    _save_array(folder / f"{name}-share.npy", np.stack(shares))
    replace_file(folder / f"{name}.json", json.dumps(texts).encode())  # last: where it is, the others are whole
    return len(numbers)


@torch.inference_mode()
def _compared(stem: ConvStem, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """uint8 [B, H, W, 3] -> what the projection reads, float16 [B, P, channels]."""
    features = stem.read_scaled(trunk_pixels(frames))
    return stem.compare(stem.standardised(features)).half().numpy()


def _cell_share(mask: npt.NDArray[np.bool_], grid: tuple[int, int]) -> npt.NDArray[np.float16]:
    rows, columns = grid
    return np.asarray(mask.reshape(rows, mask.shape[0] // rows, columns, -1).mean(axis=(1, 3)), np.float16)


def _name(start: int) -> str:
    return f"{start:07}"


def _save_array(path: Path, values: npt.NDArray[np.float16]) -> None:
    beside = path.with_suffix(".part.npy")
    np.save(beside, values)
    beside.replace(path)
