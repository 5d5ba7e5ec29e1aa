"""Reads a region of interest from a file: JSON of our own, or of LabelMe."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from kanoclip.runtime.errors import SettingsError, one_line
from kanoclip.runtime.system.files.regular import read_regular
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Polygon, RegionOfInterest

SIZE_LIMIT = 64 << 20
"""LabelMe may put the whole image into its file."""
MOST_CORNERS = 2000
MOST_POLYGONS = 256
LONGEST_SIDE = 1 << 24
"""Pixels; no image has a longer one."""
_KEYS = {"units", "size", "keep", "ignore"}
_LABELS = {"keep": "keep", "roi": "keep", "ignore": "ignore"}
"""LabelMe's labels that mean something here."""
RECTANGLE = re.compile(r"\s*(?P<numbers>\d+(?:\.\d+)?%?(?:\s*,\s*\d+(?:\.\d+)?%?){3})\s*(?:@\s*(?P<size>\d+x\d+))?\s*")
_TINY = 1e-9
"""Share of the image below which a polygon is a line."""


def read_roi(path: Path) -> RegionOfInterest:
    """Reads and checks a polygon file.

    Our own format is an object with `units`, which is `relative` (x and y from 0 to 1) or `pixels`; with `size`,
    [width, height] of the image that the pixels were counted on; and with `keep` and `ignore`, lists of polygons,
    each a list of [x, y]. From LabelMe's files come polygons and rectangles labelled `keep` (or `roi`) and `ignore`.

    A path that reads as a rectangle is one: see `rectangle`.

    Raises:
        SettingsError: It cannot be read, or what it holds is no region; the message says where.
    """
    if is_rectangle(str(path)):
        return rectangle(str(path))
    try:
        content = read_regular(path, SIZE_LIMIT)
        if content is None:
            raise SettingsError(f"{path}: over {SIZE_LIMIT >> 20} MiB, which is no polygon file")
        value = json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: the region of interest cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise SettingsError(f"{path}: not a JSON object with keep and ignore")
    try:
        return region_in(value, path.name)
    except SettingsError as error:
        raise SettingsError(f"{path}: {str(error).removeprefix(path.name + ': ')}") from None


def region_in(value: dict[str, Any], name: str) -> RegionOfInterest:
    """Checks a region that was read or drawn.

    Args:
        value: The object, in one of the formats that `read_roi` takes.
        name: What messages call it.

    Raises:
        SettingsError: It is no region: a corner lies outside of the image, a polygon has no area, or nothing is left.
    """
    region = _from_labelme(name, value) if "shapes" in value else _from_own(name, value)
    if not region.keep and not region.ignore:
        raise SettingsError("it has no polygon: give keep, ignore or both")
    if len(region.keep) + len(region.ignore) > MOST_POLYGONS:
        raise SettingsError(f"it has more than {MOST_POLYGONS} polygons: join some of them")
    # As fine as any model's map: what leaves nothing here leaves nothing there.
    region.mask(1024, 1024)
    return region


def is_rectangle(text: str) -> bool:
    """Whether a text is meant as x,y,width,height rather than as a file's name."""
    return RECTANGLE.fullmatch(text) is not None


def rectangle(text: str) -> RegionOfInterest:
    """A rectangle: `x,y,width,height` as shares of the image, in per cent, or in pixels with the image's size.

    Raises:
        SettingsError: It is none, has no area, or lies outside of the image.

    Examples:
        >>> rectangle("25%,0,50%,1").keep == rectangle("160,0,320,480@640x480").keep
        True
    """
    match = RECTANGLE.fullmatch(text)
    if match is None:
        raise SettingsError(f"{text!r} is no rectangle x,y,width,height")
    parts = match["numbers"].split(",")
    values = [float(part.strip().rstrip("%")) / (100 if part.strip().endswith("%") else 1) for part in parts]
    drawn_on: tuple[int, int] | None = None
    if match["size"] is not None:
        wide, _, high = match["size"].partition("x")
        drawn_on = int(wide), int(high)
    if drawn_on is not None and "%" in text:
        raise SettingsError(f"{text}: per cent fit any image: leave {match['size']} out")
    if drawn_on is None and max(values) > 1:
        raise SettingsError(f"{text}: pixels need the image's size: {match['numbers']}@1280x720, or give per cent")
    (x, y, across, down), (width, height) = values, drawn_on or (1, 1)
    if not (0 < width <= LONGEST_SIDE and 0 < height <= LONGEST_SIDE):
        raise SettingsError(f"{text}: no image is {width}x{height}")
    corners = [[x, y], [x + across, y], [x + across, y + down], [x, y + down]]
    region = RegionOfInterest(text, (_polygon(corners, (width, height), text),), (), drawn_on)
    region.mask(1024, 1024)
    return region


def write_roi(path: Path, region: RegionOfInterest) -> None:
    """Writes a region in our own format, in relative coordinates; `read_roi` gives the same one.

    Raises:
        SettingsError: It cannot be written.
    """
    value = {"units": "relative", "keep": region.keep, "ignore": region.ignore}
    try:
        replace_file(path, (json.dumps(value) + "\n").encode())
    except OSError as error:
        raise SettingsError(f"{path}: the region of interest cannot be written ({error.strerror})") from error


def _from_own(name: str, value: dict[str, Any]) -> RegionOfInterest:
    for key in value:
        if key not in _KEYS:
            raise SettingsError(f"unknown key {key!r}; known are {', '.join(sorted(_KEYS))}")
    units = value.get("units")
    if units not in ("relative", "pixels"):
        raise SettingsError('units must be "relative" or "pixels"')
    if units == "relative" and "size" in value:
        raise SettingsError("size goes with pixels: relative coordinates fit any image")
    size = _size(value.get("size"), "size, [width, height] of the image that it was drawn on,")
    drawn_on = size if units == "pixels" else None
    if units == "pixels" and drawn_on is None:
        raise SettingsError("pixels need size, [width, height] of the image that they were counted on")
    inside, ignored = (
        tuple(
            _polygon(corners, drawn_on or (1, 1), f"{key}[{number}]")
            for number, corners in enumerate(_as_list(value.get(key, []), key))
        )
        for key in ("keep", "ignore")
    )
    return RegionOfInterest(name, inside, ignored, drawn_on)


def _from_labelme(name: str, value: dict[str, Any]) -> RegionOfInterest:
    size = _size([value.get("imageWidth"), value.get("imageHeight")], "imageWidth and imageHeight")
    assert size is not None
    found: dict[str, list[Polygon]] = {"keep": [], "ignore": []}
    for number, shape in enumerate(_as_list(value["shapes"], "shapes")):
        where = f"shapes[{number}]"
        if not isinstance(shape, dict):
            raise SettingsError(f"{where} is not an object")
        label, kind = shape.get("label"), shape.get("shape_type", "polygon")
        if label not in _LABELS:
            raise SettingsError(f"{where} has the label {label!r}; known are {', '.join(_LABELS)}")
        corners = _as_list(shape.get("points"), f"{where}.points")
        if kind == "rectangle" and len(corners) == 2:
            (x0, y0), (x1, y1) = (_corner(corner, size, f"{where}.points") for corner in corners)
            corners = [[x * size[0], y * size[1]] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        elif kind not in ("polygon", "rectangle"):
            raise SettingsError(f"{where} is a {kind}: draw a polygon or a rectangle")
        found[_LABELS[label]].append(_polygon(corners, size, f"{where}.points"))
    return RegionOfInterest(name, tuple(found["keep"]), tuple(found["ignore"]), size)


def _size(value: Any, what: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = value if isinstance(value, list) else []
    if len(sides) != 2 or not all(
        isinstance(side, int) and not isinstance(side, bool) and 0 < side <= LONGEST_SIDE for side in sides
    ):
        raise SettingsError(f"{what} must be two whole numbers from 1 to {LONGEST_SIDE}")
    return sides[0], sides[1]


def _as_list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise SettingsError(f"{where} is not a list")
    return value


def _polygon(value: Any, size: tuple[int, int], where: str) -> Polygon:
    """Checks a polygon and makes it relative; corners given twice in a row count once."""
    corners: list[tuple[float, float]] = []
    for number, corner in enumerate(_as_list(value, where)):
        one = _corner(corner, size, f"{where}[{number}]")
        if not corners or corners[-1] != one:
            corners.append(one)
    if len(corners) > 1 and corners[0] == corners[-1]:
        del corners[-1]
    if not 3 <= len(corners) <= MOST_CORNERS:
        raise SettingsError(f"{where} has {len(corners)} different corners: a polygon has 3 to {MOST_CORNERS}")
    if abs(_area(corners)) < _TINY:
        raise SettingsError(f"{where} has no area")
    if (crossing := _crossing(corners)) is not None:
        raise SettingsError(f"{where} crosses itself: the edges after corners {crossing[0]} and {crossing[1]}")
    return tuple(corners)


def _corner(value: Any, size: tuple[int, int], where: str) -> tuple[float, float]:
    good = isinstance(value, list) and len(value) == 2
    if not good or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise SettingsError(f"{where} is not [x, y]")
    x, y = value
    width, height = size
    # Compared before anything is computed: JSON's whole numbers may have more digits than a float takes.
    if not (0 <= x <= width and 0 <= y <= height):
        x, y = one_line(x, 20), one_line(y, 20)
        raise SettingsError(f"{where} is [{x}, {y}], outside of the image (x 0 to {width}, y 0 to {height})")
    return float(x) / width, float(y) / height


def _area(corners: list[tuple[float, float]]) -> float:
    """Signed area, counter-clockwise positive where y points up."""
    turned = [*corners[1:], corners[0]]
    return 0.5 * math.fsum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, turned, strict=True))


def _crossing(corners: list[tuple[float, float]]) -> tuple[int, int] | None:
    """Two edges that cross in a point inside of both, by the numbers of their first corners."""
    start = np.asarray(corners)
    end = np.roll(start, -1, axis=0)

    def side(a: Any, b: Any, c: Any) -> Any:
        """On which side of the line from a to b c lies: 1, 0 or -1."""
        along, across = b - a, c - a
        return np.sign(along[..., 0] * across[..., 1] - along[..., 1] * across[..., 0])

    for number in range(len(corners) - 1):
        a, b, c, d = start[number], end[number], start[number + 1 :], end[number + 1 :]
        hit = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
        if hit.any():
            return number, number + 1 + int(hit.argmax())
    return None
