"""Picture files: one, a folder or a glob."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.types import BadFrame, Frame, Image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2"})
MASK_FOLDER = "ground_truth"
"""Folder of an MVTec-layout data set that holds masks beside `test`; its pictures are answers, not inputs."""


class ImageSource:
    """Pictures in a fixed order, decoded in full.

    Reduced-scale JPEG decoding saves little and would make the score depend on which outputs were asked for.

    Args:
        paths: Files, in the order wanted; at least one.
        root: A folder that all of them lie below.
        name: What to call the source.
    """

    live = False
    fps: float | None = None

    def __init__(self, paths: Sequence[Path], root: Path, name: str) -> None:
        self.name = name
        self.root: Path | None = root
        self.count: int | None = len(paths)
        self.paths = paths

    @classmethod
    def from_file(cls, path: Path) -> ImageSource:
        """One picture file."""
        return cls([path], path.parent, str(path))

    @classmethod
    def from_folder(cls, folder: Path) -> ImageSource:
        """All pictures below a folder, in natural order; masks of an MVTec-layout data set are left out.

        Raises:
            SourceError: There is none, or the folder cannot be listed.
        """
        paths = []
        for parent, folders, files in os.walk(folder, onerror=_refuse):
            # Hidden folders and files are leftovers (`._x.jpg` of macOS, partial files), not pictures meant for us.
            folders[:] = [f for f in folders if not f.startswith(".")]
            if "test" in folders and MASK_FOLDER in folders:
                folders.remove(MASK_FOLDER)
            paths += [Path(parent, f) for f in files if not f.startswith(".") and _is_picture(f)]
        if not paths:
            raise SourceError(f"{folder}: no pictures in this folder (looked for {_suffixes()})")
        return cls(sorted(paths, key=natural_key), folder, str(folder))

    @classmethod
    def from_glob(cls, pattern: str) -> ImageSource:
        """Pictures that match a pattern (`**` crosses folders), in natural order.

        Raises:
            SourceError: Nothing matches.
        """
        # pathlib's own glob takes no absolute pattern.
        matches = glob.glob(pattern, recursive=True)  # noqa: PTH207
        paths = [Path(p) for p in matches if _is_picture(p) and Path(p).is_file()]
        if not paths:
            raise SourceError(f"{pattern}: no picture matches this pattern (looked for {_suffixes()})")
        root = Path(os.path.commonpath([p.parent for p in paths])) if len(paths) > 1 else paths[0].parent
        return cls(sorted(paths, key=natural_key), root, pattern)

    def frames(self) -> Iterator[Frame | BadFrame]:
        """Yields each picture, or a `BadFrame` for one that cannot be read."""
        for index, path in enumerate(self.paths):
            started = time.perf_counter()
            captured_at = time.time()
            image = read_image(path)
            if isinstance(image, str):
                yield BadFrame(index, str(path), image)
            else:
                yield Frame(index, str(path), captured_at, image, (time.perf_counter() - started) * 1e3)

    def close(self) -> None:
        """Files are closed as soon as they are read: nothing to release."""


def read_image(path: Path) -> Image | str:
    """Reads a picture file.

    Returns:
        uint8 [H, W, 3] BGR, turned upright by its EXIF orientation; or the reason why it cannot be read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        return error.strerror or "cannot be read"
    if not raw:
        return "the file is empty"
    if _is_cut_short(raw):
        # Some OpenCV versions paint the missing rows grey and call it a success: the detector must not judge that.
        return "the file is cut short"
    try:
        image = cv2.imdecode(np.frombuffer(raw, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # for one, more pixels than OpenCV's limit
        image = None
    if image is None:
        return "not a picture that OpenCV can decode"
    return np.asarray(image, dtype=np.uint8)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which `2.jpg` comes before `10.jpg`."""
    key: list[tuple[int, int, str]] = []
    for part in path.parts:
        for token in re.findall(r"[0-9]+|[^0-9]+", part):
            key.append((0, int(token), token) if token.isdecimal() else (1, 0, token))
        key.append((-1, 0, ""))  # ends a folder's name before anything longer
    return key


def _is_cut_short(raw: bytes) -> bool:
    """Whether a JPEG or PNG file lacks its end marker."""
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" not in raw
    if not raw.startswith(b"\xff\xd8"):
        return False
    # The end marker of an EXIF thumbnail must not count: hop over the header's segments by their lengths.
    position = 2
    while position + 4 <= len(raw) and raw[position] == 0xFF and raw[position + 1] != 0xDA:
        if raw[position + 1] == 0xFF:  # padding
            position += 1
        else:
            position += 2 + int.from_bytes(raw[position + 2 : position + 4], "big")
    return raw.rfind(b"\xff\xd9") < position  # from the end, where the marker of a whole file is


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path per directory entry is slow


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def _refuse(error: OSError) -> None:
    raise SourceError(f"{error.filename}: folder cannot be listed ({error.strerror})") from error
