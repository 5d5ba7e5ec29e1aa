"""`test://`: a belt of woven cloth that runs under the camera, some of it damaged. Needs neither camera nor screen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.sources.base import BaseSource
from kanoclip.runtime.sources.gstreamer.query import decimal, split_query, whole
from kanoclip.runtime.types import Frame, Image

TEST = "test://"

_WHOLE = {"width": (64, 7680), "height": (64, 4320), "seed": (0, 999_999_999)}
_DECIMAL = {"fps": (0.01, 1000.0), "defect": (0.0, 1.0), "speed": (0.0, 10.0)}
_THREADS_ACROSS = 40
_CLOTH = np.array([116, 138, 152], np.float32)  # BGR


@dataclass(frozen=True)
class TestPattern:
    """What is shown: `test://?width=1280&height=720&fps=30&defect=0.1&seed=7`.

    Attributes:
        width: Pixels.
        height: Pixels.
        fps: Frames per second.
        defect: The probability that a piece of the belt as long as the image has a defect.
        seed: Chooses where and which. With the same values frame N is the same image.
        speed: Images' widths that the belt moves a second.
    """

    __test__ = False  # it is none of pytest's

    width: int = 1280
    height: int = 720
    fps: float = 30.0
    defect: float = 0.0
    seed: int = 0
    speed: float = 0.25

    @classmethod
    def parse(cls, spec: str) -> TestPattern:
        """Reads `test://?name=value&...`.

        Raises:
            SourceError: It is not of that form.
        """
        _, options = split_query(spec, TEST, [*_WHOLE, *_DECIMAL], "?width=1280&height=720&fps=30&defect=0.1")
        numbers = {name: whole(spec, name, options[name], *_WHOLE[name]) for name in _WHOLE if name in options}
        parts = {name: decimal(spec, name, options[name], *_DECIMAL[name]) for name in _DECIMAL if name in options}
        return cls(**numbers, **parts)  # type: ignore[arg-type]  # the names are the fields'


class TestPatternSource(BaseSource):
    """The frames of a test pattern, live: at its rate, without end.

    Args:
        spec: `test://` with options, see `TestPattern`.

    Raises:
        SourceError: It is not of that form.

    Examples:
        >>> source = TestPatternSource("test://?width=320&height=240&fps=25")
        >>> next(source.frames()).image.shape
        (240, 320, 3)
        >>> source.close()
    """

    __test__ = False

    live = True
    count: int | None = None
    root: Path | None = None

    def __init__(self, spec: str) -> None:
        self.name = spec
        self.pattern = TestPattern.parse(spec)
        self.fps: float | None = self.pattern.fps
        self._interrupted = threading.Event()
        self._belt: Image | None = None

    def frames(self) -> Iterator[Frame]:
        """Yields frames until `interrupt` or `close` is called."""
        index, due = 0, time.monotonic()
        while not self._interrupted.wait(max(0.0, due - time.monotonic())):
            captured_at, started = time.time(), time.perf_counter()
            image = self.image_at(index)
            yield Frame(index, self.name, captured_at, image, (time.perf_counter() - started) * 1e3)
            index += 1
            due = max(due + 1 / self.pattern.fps, time.monotonic() - 1.0)  # a reader that was late is not flooded

    def image_at(self, index: int) -> Image:
        """Frame `index`: uint8 [height, width, 3] BGR."""
        return _draw_image(self._belt_now(), self.pattern, index)

    def has_defect(self, index: int) -> bool:
        """Whether any of a defect lies within frame `index`."""
        damaged = self.image_at(index)
        clean = replace(self.pattern, defect=0.0)
        return bool((damaged != _draw_image(self._belt_now(), clean, index)).any())

    def interrupt(self) -> None:
        """Makes `frames` end; may be called from any thread."""
        self._interrupted.set()

    def close(self) -> None:
        """There is nothing to release."""
        self.interrupt()

    def _belt_now(self) -> Image:
        if self._belt is None:
            self._belt = _weave(self.pattern.height, self.pattern.width, self.pattern.seed)
        return self._belt


def _draw_image(belt: Image, pattern: TestPattern, index: int) -> Image:
    """What the camera sees of the belt at frame `index`."""
    start = round(index * pattern.speed * pattern.width / pattern.fps)
    image = np.roll(belt, -(start % pattern.width), axis=1)
    for piece in (start // pattern.width, start // pattern.width + 1):
        _damage(image, pattern, piece, piece * pattern.width - start)
    return image


def _weave(height: int, width: int, seed: int) -> Image:
    """Plain cloth, seamless from its right edge to its left: uint8 [height, width, 3]."""
    chance = np.random.default_rng([seed, 1])
    across = max(2, round(_THREADS_ACROSS * width / height / 2) * 2)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    warp, weft = x * across / width, y * _THREADS_ACROSS / height
    over = (np.floor(warp) + np.floor(weft)) % 2 == 0
    # A thread is round, and bends down where it goes beneath the next one.
    shade = np.where(
        over,
        np.sin(np.pi * (warp % 1)) * (0.75 + 0.25 * np.sin(np.pi * (weft % 1))),
        np.sin(np.pi * (weft % 1)) * (0.75 + 0.25 * np.sin(np.pi * (warp % 1))),
    )
    threads = np.where(over, chance.normal(0, 1, across)[np.floor(warp).astype(int) % across], 0.0)
    noise = chance.normal(0, 1, (height, width)).astype(np.float32)
    light = 0.72 + 0.28 * shade + 0.02 * threads + 0.02 * noise
    return np.asarray(np.clip(light[:, :, None] * _CLOTH, 0, 255), np.uint8)


def _damage(image: Image, pattern: TestPattern, piece: int, left: int) -> None:
    """Draws the defect of a piece of the belt, if it has one, whose left edge is at column `left`."""
    chance = np.random.default_rng([pattern.seed, 2, piece])
    if chance.random() >= pattern.defect:
        return
    side = pattern.height
    x = left + int(chance.uniform(0.2, 0.8) * pattern.width)
    y = int(chance.uniform(0.2, 0.8) * side)
    if chance.random() < 0.5:
        _loose_threads(image, chance, x, y, chance.uniform(0.06, 0.12) * side)
    else:
        _tear(image, chance, x, y, chance.uniform(0.11, 0.18) * side)


def _loose_threads(image: Image, chance: np.random.Generator, x: int, y: int, size: float) -> None:
    """Draws threads that have come out of the cloth and lie across each other."""
    for start_x, start_y, end_x, end_y in chance.normal(0, 1.5 * size, (6, 4)):
        start, end = (int(x + start_x), int(y + start_y)), (int(x + end_x), int(y + end_y))
        cv2.line(image, start, end, (188, 208, 218), max(2, image.shape[0] // 180), cv2.LINE_AA)


def _tear(image: Image, chance: np.random.Generator, x: int, y: int, size: float) -> None:
    """Draws a hole with a ragged edge."""
    turns, reach = np.linspace(0, 2 * np.pi, 13, endpoint=False), chance.uniform(0.5, 1.1, 13)
    corners = np.stack([x + size * reach * np.cos(turns), y + size * reach * np.sin(turns)], axis=1)
    cv2.fillPoly(image, [corners.astype(np.int32)], (18, 16, 15), cv2.LINE_AA)
