"""Single things lying on a ground: name -> a function that gives a silhouette and its look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.train.nano.scenes.materials import MATERIALS, Paint, any_colour, colour
from kanoclip.train.nano.scenes.noise import Field, Rng, fractal, grain, smooth

Silhouette = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """A kind of object.

    Attributes:
        words: For captions.
        paint: Gives (look, silhouette): float32 [size, size, 3] in [0, 1] and [size, size] in [0, 1].
        dark_ground: Seen before a black ground only.
    """

    words: str
    paint: Callable[[Rng, int], tuple[Paint, Silhouette]]
    dark_ground: bool = False


def fill(size: int, *outlines: Points) -> Silhouette:
    """Outlines in units of the image's side (0 to 1), filled with the even-odd rule and smooth edges."""
    canvas = np.zeros((size, size), np.uint8)
    fixed = [np.round(points * size * 16).astype(np.int32) for points in outlines]
    cv2.fillPoly(canvas, fixed, 255, cv2.LINE_AA, 4)
    return np.asarray(canvas / 255, np.float32)


def circle(centre: tuple[float, float], radius: float, squeeze: float = 1.0, steps: int = 90) -> Points:
    """Outline of a circle, or of an ellipse `squeeze` times as high as wide: [steps, 2]."""
    turn = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(turn), centre[1] + radius * squeeze * np.sin(turn)], axis=1)


def polygon(sides: int, radius: float, turn: float) -> Points:
    """Outline of a regular polygon around the middle."""
    return _turned(circle((0.5, 0.5), radius, steps=sides), turn)


def relief(shape: Silhouette, depth: float, towards: float) -> Field:
    """Light and shadow of a body that bulges `depth` pixels: around 0, brighter on the side of the light."""
    inside = cv2.distanceTransform((shape > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    height = np.sqrt(np.clip(np.asarray(inside, np.float32) / np.float32(max(depth, 1)), 0, 1))
    height = np.asarray(cv2.GaussianBlur(height, (0, 0), max(depth / 12, 0.8)), np.float32) * np.float32(depth)
    across, down = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8)
    slope = across * np.float32(np.cos(towards)) + down * np.float32(np.sin(towards))
    return np.asarray(slope / np.sqrt(1 + across**2 + down**2), np.float32)


def _turned(points: Points, turn: float) -> Points:
    cos, sin = np.cos(turn), np.sin(turn)
    return (points - 0.5) @ np.array([[cos, sin], [-sin, cos]]) + 0.5


def _lit(rng: Rng, look: Paint, shape: Silhouette, depth: float, strength: float = 0.6) -> Paint:
    return look * (1 + strength * relief(shape, depth, rng.uniform(0, 2 * np.pi))[..., None])


def _metal(rng: Rng, size: int) -> Paint:
    return MATERIALS[str(rng.choice(["brushed metal", "cast metal", "painted metal"]))].paint(rng, size)


def _plain(rng: Rng, size: int, tint: npt.NDArray[np.float32], rough: float = 0.02) -> Paint:
    return np.asarray(tint * (1 + rough * grain(rng, size, 1)[..., None]), np.float32)


def _nut(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    sides = int(rng.choice([4, 6, 6, 8]))
    outer = polygon(sides, rng.uniform(0.32, 0.44), rng.uniform(0, 6))
    shape = fill(size, outer, circle((0.5, 0.5), rng.uniform(0.12, 0.22)))
    return _lit(rng, _metal(rng, size), shape, rng.uniform(4, 14)), shape


def _washer(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    radius = rng.uniform(0.3, 0.45)
    shape = fill(size, circle((0.5, 0.5), radius), circle((0.5, 0.5), radius * rng.uniform(0.3, 0.7)))
    return _lit(rng, _metal(rng, size), shape, rng.uniform(3, 9)), shape


def _gear(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    teeth, radius = int(rng.integers(8, 28)), rng.uniform(0.34, 0.44)
    turn = np.linspace(0, 2 * np.pi, teeth * 8, endpoint=False)
    r = radius * (1 + rng.uniform(0.04, 0.12) * np.clip(2 * np.sin(turn * teeth), -1, 1))
    outer = np.stack([0.5 + r * np.cos(turn), 0.5 + r * np.sin(turn)], axis=1)
    holes = [circle((0.5, 0.5), rng.uniform(0.06, 0.18))]
    shape = fill(size, outer, *holes)
    return _lit(rng, _metal(rng, size), shape, rng.uniform(3, 8)), shape


def _screw(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    pitch, body, head = rng.uniform(0.02, 0.045), rng.uniform(0.04, 0.075), rng.uniform(0.09, 0.14)
    x = np.linspace(0.2, 0.9, 240)
    wave = body + pitch * 0.35 * (2 * np.abs((x / pitch) % 1 - 0.5) - 0.5) * (x > 0.3)
    wave *= np.clip((0.93 - x) / 0.08, 0, 1) ** 0.7
    upper, lower = np.stack([x, 0.5 - wave], axis=1), np.stack([x[::-1], 0.5 + np.roll(wave, 4)[::-1]], axis=1)
    top = np.array([[0.1, 0.5 - head], [0.19, 0.5 - head * rng.uniform(0.5, 1)]])
    bottom = top[::-1] * [1, -1] + [0, 1]
    shape = fill(size, np.concatenate([top, upper, lower, bottom]))
    look = _metal(rng, size)
    turns = np.sin(np.arange(size, dtype=np.float32) / size / pitch * 2 * np.pi) * (np.arange(size) > 0.3 * size)
    return _lit(rng, look * (1 + 0.2 * turns[None, :, None]), shape, size * body * 1.2, 0.9), shape


def _pill(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    shape = fill(size, circle((0.5, 0.5), rng.uniform(0.28, 0.44), rng.uniform(0.5, 1)))
    look = _plain(rng, size, colour(rng, (0, 1), (0, 0.6), (0.7, 0.97)))
    if rng.random() < 0.4:
        look[grain(rng, size, 1.2) > 2.1] = any_colour(rng)
    if rng.random() < 0.6:
        _emboss(rng, look)
    return _lit(rng, look, shape, rng.uniform(10, 40), 0.7), shape


def _capsule(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    half, radius = rng.uniform(0.2, 0.28), rng.uniform(0.11, 0.17)
    turn = np.linspace(-np.pi / 2, np.pi / 2, 40)
    cap = np.stack([0.5 + half + radius * np.cos(turn), 0.5 + radius * np.sin(turn)], axis=1)
    shape = fill(size, np.concatenate([cap, np.array([1.0, 1.0]) - cap]))
    look = _plain(rng, size, any_colour(rng), 0.01)
    split = int(size * rng.uniform(0.42, 0.58))
    look[:, split:] = any_colour(rng)
    look[:, split : split + 2] *= 0.75
    if rng.random() < 0.5:
        _emboss(rng, look)
    return _lit(rng, look, shape, size * radius, 0.9), shape


def _bottle(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    """From above: rings of glass around a dark mouth."""
    outer = rng.uniform(0.36, 0.47)
    look = np.empty((size, size, 3), np.float32)
    look[:] = colour(rng, (0, 1), (0, 0.7), (0.05, 0.5))
    radii = np.sort(rng.uniform(0.25, 1, int(rng.integers(3, 7))))[::-1] * outer
    for radius in radii:
        look = _over(look, fill(size, circle((0.5, 0.5), radius)), colour(rng, (0, 1), (0, 0.5), (0.02, 0.9)))
    shape = fill(size, circle((0.5, 0.5), outer))
    return np.asarray(cv2.GaussianBlur(_lit(rng, look, shape, 12), (0, 0), 0.8), np.float32), shape


def _cable(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    """Head-on: a sheath, cores in their insulation, strands."""
    shape = fill(size, circle((0.5, 0.5), 0.45))
    look = _plain(rng, size, any_colour(rng), 0.04)
    count = int(rng.integers(2, 6))
    ring, core = rng.uniform(0.19, 0.24), rng.uniform(0.12, 0.16) * (1 if count < 4 else 0.8)
    turn = rng.uniform(0, 6)
    for i in range(count):
        at = (0.5 + ring * np.cos(turn + 2 * np.pi * i / count), 0.5 + ring * np.sin(turn + 2 * np.pi * i / count))
        look = _over(look, fill(size, circle(at, core)), any_colour(rng))
        copper = colour(rng, (0.04, 0.1), (0.3, 0.8), (0.5, 0.9))
        strands = copper * (1 + 0.25 * grain(rng, size, 1.5)[..., None])
        inside = fill(size, circle(at, core * 0.62))[..., None]
        look = look * (1 - inside) + strands * inside
    return _lit(rng, look, shape, 8), shape


def _fruit(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    """Nuts, fruit, stones: a bulging blob with a mottled or striped skin."""
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    r = rng.uniform(0.28, 0.42) * (
        1 + 0.08 * np.sin(turn + rng.uniform(0, 6)) + 0.04 * np.sin(2 * turn + rng.uniform(0, 6))
    )
    outline = np.stack([0.5 + r * np.cos(turn), 0.5 + r * rng.uniform(0.75, 1) * np.sin(turn)], axis=1)
    shape = fill(size, outline)
    stretch = rng.choice([1.0, 6.0])
    level = (fractal(rng, size, rng.uniform(4, 12), 4, 0.6, stretch) - 0.5) * rng.uniform(0.15, 0.5)
    look = colour(rng, (-0.02, 0.35), (0.25, 0.85), (0.3, 0.9)) * (1 + level[..., None])
    return _lit(rng, look, shape, size * 0.3, 0.9), shape


def _biscuit(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    """Pressed or baked rounds and rings."""
    outlines = [circle((0.5, 0.5), rng.uniform(0.33, 0.44))]
    if rng.random() < 0.5:
        outlines += [circle((0.5 + 0.2 * np.cos(a), 0.5 + 0.2 * np.sin(a)), 0.05) for a in np.arange(0, 6.2, 1.256)]
    shape = fill(size, *outlines)
    look = colour(rng, (0.05, 0.14), (0.2, 0.6), (0.5, 0.9)) * (1 + (fractal(rng, size, 14)[..., None] - 0.5) * 0.4)
    return _lit(rng, look, shape, 14), shape


def _bracket(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    w, t = rng.uniform(0.3, 0.4), rng.uniform(0.12, 0.2)
    corner = np.array([[-w, -w], [-w + t, -w], [-w + t, w - t], [w, w - t], [w, w], [-w, w]]) + 0.5
    holes = [circle((0.5 - w + t / 2, 0.5 - w * k), t * 0.22) for k in (0.7, 0.1)]
    holes += [circle((0.5 + w * k, 0.5 + w - t / 2), t * 0.22) for k in (0.1, 0.7)]
    turn = rng.uniform(0, 6)
    shape = fill(size, _turned(corner, turn), *(_turned(hole, turn) for hole in holes))
    return _lit(rng, _metal(rng, size), shape, rng.uniform(3, 10)), shape


def _block(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    """Bars, plates, boxes, chips: a rectangle of any material."""
    w, h = rng.uniform(0.2, 0.45), rng.uniform(0.12, 0.45)
    corners = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) + 0.5
    shape = fill(size, corners)
    name = str(rng.choice(list(MATERIALS)))
    look = MATERIALS[name].paint(rng, size)
    if rng.random() < 0.3:
        _emboss(rng, look)
    return _lit(rng, look, shape, rng.uniform(3, 12)), shape


def _slice(rng: Rng, size: int) -> tuple[Paint, Silhouette]:
    """A scan of a body: an oval shell, alike left and right, with folds and chambers, grey."""
    squeeze = rng.uniform(1.0, 1.35)
    radius = rng.uniform(0.3, 0.45) / squeeze
    outline = circle((0.5, 0.5), radius, squeeze)
    outline = (outline - 0.5) * (1 + rng.uniform(-0.06, 0.06) * np.sin(np.linspace(0, 4 * np.pi, len(outline))))[
        :, None
    ]
    thick = rng.uniform(0.04, 0.14)
    shape, inner = fill(size, outline + 0.5), fill(size, outline * (1 - thick) + 0.5)
    gap = fill(size, outline * (1 - thick * rng.uniform(1.1, 1.8)) + 0.5)
    alike = rng.uniform(0.75, 1.0)
    folds = _mirrored(fractal(rng, size, rng.uniform(5, 14), 4, 0.6), alike)
    if rng.random() < 0.6:  # thin furrows between the folds
        folds = folds - rng.uniform(0.3, 0.9) * np.exp(-(((folds - 0.5) / rng.uniform(0.015, 0.06)) ** 2))
    middle = np.exp(-((np.linspace(-1, 1, size, dtype=np.float32) / rng.uniform(0.01, 0.03)) ** 2))[None, :]
    core = gap * np.exp(-((_radius(size) / rng.uniform(0.12, 0.3)) ** 2))
    chambers = (
        np.clip((_mirrored(smooth(rng, size, rng.uniform(4, 9)), 1.0) - rng.uniform(0.55, 0.75)) * 12, 0, 1) * core
    )
    level = rng.uniform(0.15, 0.45) + rng.uniform(0.1, 0.6) * (folds - 0.4) + chambers * rng.uniform(-0.5, 0.6)
    level = level - middle * rng.uniform(-0.2, 0.2)
    level = gap * level + (inner - gap) * rng.uniform(0, 0.2) + (shape - inner) * rng.uniform(0.15, 1.0)
    return np.clip(np.repeat(level[..., None], 3, axis=2), 0, 1).astype(np.float32), shape


def _mirrored(field: Field, alike: float) -> Field:
    """The two halves as like each other as `alike` of 1 says."""
    even = (field + field[:, ::-1]) / 2
    return np.asarray(even * alike + field * (1 - alike), np.float32)


def _radius(size: int) -> Field:
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    return np.hypot(ramp[None, :], ramp[:, None])


def _over(look: Paint, shape: Silhouette, tint: npt.NDArray[np.float32]) -> Paint:
    return np.asarray(look + shape[..., None] * (tint - look), np.float32)


def _emboss(rng: Rng, look: Paint) -> None:
    """Letters pressed or printed on."""
    size = look.shape[0]
    text = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(1, 5))))
    stencil = np.zeros((size, size), np.uint8)
    at = (int(size * rng.uniform(0.25, 0.4)), int(size * rng.uniform(0.48, 0.6)))
    cv2.putText(stencil, text, at, cv2.FONT_HERSHEY_SIMPLEX, size / 256 * rng.uniform(0.8, 1.8), 255, 2, cv2.LINE_AA)
    look *= 1 - np.float32(rng.uniform(0.1, 0.6)) * (stencil.astype(np.float32) / 255)[..., None]


THINGS: dict[str, Thing] = {
    "nut": Thing("metal nut", _nut),
    "washer": Thing("washer", _washer),
    "gear": Thing("gear wheel", _gear),
    "screw": Thing("screw", _screw),
    "pill": Thing("pill", _pill),
    "capsule": Thing("capsule", _capsule),
    "bottle": Thing("bottle seen from above", _bottle),
    "cable": Thing("cable", _cable),
    "fruit": Thing("fruit", _fruit),
    "biscuit": Thing("biscuit", _biscuit),
    "bracket": Thing("metal bracket", _bracket),
    "block": Thing("block", _block),
    "scan": Thing("scan of a body", _slice, dark_ground=True),
}
"""By name."""
