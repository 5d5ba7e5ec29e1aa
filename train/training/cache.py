"""Cache of the frozen tower's features on disk: computed once, read by every later epoch and run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from kanoclip.runtime.bundle.manifest.parts import INTERPOLATION, RESIZE_RULE
from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.model.towers.clip_vv import STAGES, ClipVV, ImageFeatures

FORMAT = 2
_KEY_FILE = "key.json"
_RECOUNT = 64
"""Files stored between two looks at the folder's true size, to which other processes add."""


def pack(image: ImageFeatures) -> Tensor:
    """Four stages and the global feature, and a stem's distances where there are any -> float16 [B, rows, C].

    The tokens are L2-normalised: the head reads directions only, and unit vectors cannot overflow float16. The
    distances, one a patch, follow in as many rows as they fill.
    """
    tokens = torch.cat([*image.patches, image.global_token[:, None]], dim=1)
    unit = torch.nn.functional.normalize(tokens.float(), dim=-1)
    if image.distance is None:
        return unit.half()
    batch, _, width = unit.shape
    padded = torch.nn.functional.pad(image.distance.float(), (0, -image.distance.shape[1] % width))
    return torch.cat([unit, padded.reshape(batch, -1, width)], dim=1).half()


def unpack(packed: Tensor, cells: int) -> ImageFeatures:
    """The inverse of `pack`, in float32; `cells` is P."""
    values = packed.float()
    tokens, rest = values[:, : STAGES * cells], values[:, STAGES * cells + 1 :]
    distance = rest.flatten(1)[:, :cells] if rest.shape[1] else None
    return ImageFeatures(tuple(tokens.chunk(STAGES, dim=1)), values[:, STAGES * cells], distance=distance)


def tower_key(tower: ClipVV, amp: str) -> dict[str, object]:
    """All that decides the features of an image, apart from the image itself."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "format": FORMAT,
        "weights": digest.hexdigest(),
        "size": list(tower.size),
        "normalisation": [*tower.normalisation.mean, *tower.normalisation.std],
        "vv": tower.vv,
        "global_token": tower.global_token,
        "amp": amp,
        "resize": f"{RESIZE_RULE} {INTERPOLATION}",
    }


@dataclass(frozen=True)
class CacheUse:
    """What the cache did so far in this process.

    Attributes:
        hits: Images read from it.
        misses: Images that had to be computed.
        note: Why nothing more is being stored, None while it is.
    """

    hits: int
    misses: int
    note: str | None


class FeatureCache:
    """One file per image, `ROOT/TOWER/IMAGE.npy`, float16 [4 P + 1, C], memory-mapped when read.

    A file is written under another name and renamed, so a killed writer leaves nothing that is read, and several
    processes may share a folder. When the folder would pass its limit, other towers' features go first, those unused
    for the longest time before the rest; then nothing more is stored, and the images left over are computed anew.
    """

    def __init__(self, root: Path, key: dict[str, object], shape: tuple[int, int], limit: int) -> None:
        """Opens, or makes, the part of a cache that belongs to one tower.

        Args:
            root: The cache's folder.
            key: `tower_key`.
            shape: (4 P + 1, C) of an image's features.
            limit: Most bytes that the whole folder may take.

        Raises:
            TrainingError: The folder cannot be made or written.
        """
        self.root, self.shape, self.limit = root, shape, limit
        text = json.dumps(key, sort_keys=True, indent=2)
        self.folder = root / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self._file_bytes = 2 * shape[0] * shape[1] + 128  # numpy's header is 128 bytes
        self._hits = self._misses = self._stored = 0
        self._note: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            # A new modification time each run: what `_evict` goes by.
            replace_file(self.folder / _KEY_FILE, text.encode())
            self._used = self._count()
        except OSError as error:
            raise TrainingError(
                f"the feature cache {root} cannot be written ({error.strerror}): choose another --cache, or --no-cache"
            ) from error

    @property
    def use(self) -> CacheUse:
        """Hits, misses, and why it is full."""
        return CacheUse(self._hits, self._misses, self._note)

    def load(self, image: str) -> Tensor | None:
        """An image's features, float16 [4 P + 1, C], or None when they are not there or are damaged.

        Args:
            image: Digest of the image's file.
        """
        path = self._path(image)
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            stored = None
        except (OSError, ValueError, EOFError):
            path.unlink(missing_ok=True)
            stored = None
        if stored is None or stored.shape != self.shape or stored.dtype != np.float16:
            self._misses += 1
            return None
        self._hits += 1
        return torch.from_numpy(np.array(stored))

    def store(self, image: str, features: Tensor) -> None:
        """Keeps an image's features if there is room; a disk that is full ends storing, not the run.

        Args:
            image: Digest of the image's file.
            features: float16 [4 P + 1, C].
        """
        if self._note is not None or not self._make_room():
            return
        path = self._path(image)
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                np.save(file, features.cpu().numpy())
            beside.replace(path)
            self._stored += 1
            self._used = self._count() if self._stored % _RECOUNT == 0 else self._used + self._file_bytes
        except OSError as error:
            beside.unlink(missing_ok=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            reason = "the disk is full" if full else str(error.strerror)
            self._note = f"{self.root}: {reason}; what is cached is used, the rest is computed in every epoch"

    def _path(self, image: str) -> Path:
        return self.folder / f"{image}.npy"

    def _count(self) -> int:
        return sum(_size(path) for path in self.root.glob("*/*.npy"))

    def _make_room(self) -> bool:
        while self._used + self._file_bytes > self.limit:
            if not self._evict():
                self._note = (
                    f"{self.root} holds its {self.limit / 2**30:.3g} GiB; what is cached is used, the rest is computed "
                    "in every epoch (--cache-size raises the limit)"
                )
                return False
        return True

    def _evict(self) -> bool:
        """Removes the features of the tower that was unused for the longest time; False when there is no other."""
        others = [path for path in self.root.glob(f"*/{_KEY_FILE}") if path.parent != self.folder]
        if not others:
            return False
        oldest = min(others, key=lambda path: path.stat().st_mtime).parent
        freed = sum(_size(path) for path in oldest.glob("*.npy"))
        shutil.rmtree(oldest, ignore_errors=True)
        self._used -= freed
        return not oldest.exists()

    def _sweep(self) -> None:
        """Removes what killed writers left: parts of processes that are no more."""
        for part in self.folder.glob("*.part"):
            pid = part.name.split(".")[-2]
            if not (pid.isdigit() and psutil.pid_exists(int(pid))):
                part.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just removed it
        return 0


def features_shape(tower: ClipVV) -> tuple[int, int]:
    """(rows, C): the shape of one image's packed features."""
    cells, width = tower.grid[0] * tower.grid[1], tower.joint_width
    return STAGES * cells + 1 + (-(-cells // width) if tower.stem is not None else 0), width
