"""An image with what was found in it: a small JPEG inside of the page, and its mask and boxes as lines over it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.ops.score.places import read_bytes
from kanoclip.runtime.ops.score.scorer import MAP_LEVELS
from kanoclip.runtime.ops.score.table import decode_runs
from kanoclip.runtime.sinks.draw.heat_map import paint_heat_map
from kanoclip.runtime.sources.files.decode import decode_as
from kanoclip.runtime.sources.files.images import decode_image
from kanoclip.runtime.types import Image

SIDE = 480
"""Longer side of an image in the page."""
QUALITY = 82


@dataclass(frozen=True)
class Case:
    """One image of the page.

    Attributes:
        row: Its row of the table.
        image: As a `data:` URL; None where the file cannot be read.
        overlay: The same with its map painted over it; None where no maps were saved.
        reason: Why there is no image.
    """

    row: Mapping[str, Any]
    image: str | None
    overlay: str | None = None
    reason: str = ""


def make_case(row: Mapping[str, Any], maps: Path | None, pixel_threshold: float) -> Case:
    """Reads a row's image.

    Args:
        row: Of the table.
        maps: The folder that `kanoclip-score --maps` wrote; None to do without.
        pixel_threshold: What its regions were found by.
    """
    raw = read_bytes(row["path"])
    frame = raw if isinstance(raw, str) else decode_image(raw)
    if isinstance(frame, str):
        return Case(row, None, reason=frame)
    if frame.shape[:2] != (row["height"], row["width"]):
        return Case(row, None, reason="the file has changed since it was scored")
    scale = min(1.0, SIDE / max(frame.shape[:2]))
    size = (max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1))
    small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    return Case(row, jpeg_url(small), _overlay(small, row["map_file"], maps, pixel_threshold))


def overlay(row: Mapping[str, Any]) -> str:
    """A row's mask and regions as SVG, in pixels of the original image."""
    width, height = row["width"], row["height"]
    mask = row["mask"]
    rows, columns = mask["size"]
    outline = _outline(decode_runs(mask["counts"], rows, columns), width / columns, height / rows)
    boxes = "".join(
        f'<rect class="box" x="{one["x"]}" y="{one["y"]}" width="{one["width"]}" height="{one["height"]}">'
        f"<title>{one['score']:.3f}, {one['area']:,} pixels</title></rect>"
        for one in row["regions"]
    )
    shape = f'<path class="mask" d="{html.escape(outline)}"/>' if outline else ""
    return f'<svg class="over" viewBox="0 0 {width} {height}" preserveAspectRatio="none">{shape}{boxes}</svg>'


def jpeg_url(image: Image) -> str:
    """An image as a `data:` URL."""
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def png_url(image: Image) -> str:
    """The same without loss, for small ones."""
    encoded = cv2.imencode(".png", image)[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def _outline(mask: npt.NDArray[np.bool_], across: float, down: float) -> str:
    """Edges of a mask's pixels as a path, scaled."""
    # Twice as large and with a rim: contours go through the middle of pixels, and so come to lie on edges, nearly.
    large = cv2.copyMakeBorder(
        np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0
    )
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        points = (contour[:, 0, :].astype(float) - 0.5) / 2 * (across, down)
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z")
    return "".join(parts)


def _overlay(small: Image, name: str | None, maps: Path | None, pixel_threshold: float) -> str | None:
    if name is None or maps is None:
        return None
    raw = read_bytes(str(maps / name))
    level = raw if isinstance(raw, str) else decode_as(raw, cv2.IMREAD_UNCHANGED)
    if isinstance(level, str) or level.dtype != np.uint16 or level.ndim != 2:
        return None
    painted = small.copy()
    paint_heat_map(painted, (level / MAP_LEVELS).astype(np.float32), pixel_threshold)
    return jpeg_url(painted)
