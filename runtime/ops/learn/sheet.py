"""A contact sheet of references: what was used, what is unlike the rest, what was left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.detect.learning.seen import THUMBNAIL
from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.learn.job import Learned
from kanoclip.runtime.system.files.own import mark_file
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Image

COLUMNS, MOST = 8, 96
"""Frames in a row, and in all: the odd ones come first."""
_TEXT, _EDGE = 40, 6
_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_USED, _ODD, _OUT = (90, 170, 60), (30, 160, 240), (50, 60, 220)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_sheet(learned: Learned) -> Image:
    """Each frame with its name, framed green where it is used, orange where it is odd but used, red where left out.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    used, reasons = set(learned.used.tolist()), {one.number: one.reason for one in learned.outliers}
    suspicion = None if learned.selection is None else learned.selection.peaks
    order = sorted(
        range(len(learned.observed.thumbnails)),
        key=lambda n: (n in used, n not in reasons, 0.0 if suspicion is None else -float(suspicion[n]), n),
    )[:MOST]
    cells = []
    for number in order:
        state = "left out" if number not in used else "unlike the others" if number in reasons else "used"
        colour = _OUT if number not in used else _ODD if number in reasons else _USED
        name = Path(learned.observed.references.names[number]).name
        cells.append(_cell(learned.observed.thumbnails[number], name, state, colour))
    columns = min(COLUMNS, len(cells))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.concatenate(cells[start : start + columns], 1) for start in range(0, len(cells), columns)]
    return np.concatenate(rows)


def write_jpeg(path: Path, image: Image) -> None:
    """Writes an image, whole or not at all.

    Raises:
        SinkError: It cannot be written.
    """
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert good
    try:
        mark_file(path)  # first: the sheet may lie among images that are read
        replace_file(path, data.tobytes())
    except OSError as error:
        raise SinkError(f"{path}: cannot be written ({error.strerror})") from error


def _cell(thumbnail: Image, name: str, state: str, colour: tuple[int, int, int]) -> Image:
    side = THUMBNAIL + 2 * _EDGE
    cell = np.full((side + _TEXT, side, 3), _PAPER, np.uint8)
    height, width = thumbnail.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    cell[top : top + height, left : left + width] = thumbnail
    cv2.rectangle(cell, (left - 3, top - 3), (left + width + 2, top + height + 2), colour, 3)
    shown = name if len(name) <= 26 else f"...{name[-23:]}"
    for line, text in enumerate((shown.encode("ascii", "replace").decode(), state)):
        cv2.putText(cell, text, (_EDGE, side + 14 + 18 * line), _FONT, 0.42, _INK, 1, cv2.LINE_AA)
    return cell
