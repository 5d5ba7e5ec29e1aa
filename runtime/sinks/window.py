"""A window on the screen."""

from __future__ import annotations

import os
import sys

import cv2

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.draw.draw import annotate
from kanoclip.runtime.sinks.draw.heat_map import Canvas
from kanoclip.runtime.system.installed import succeeds
from kanoclip.runtime.types import BadFrame, Detection, Frame

_QUIT_KEYS = frozenset({ord("q"), ord("Q"), 27})
_PROBE = "import cv2; cv2.namedWindow('probe'); cv2.destroyAllWindows()"
_PROBE_TIMEOUT_S = 20.0


def has_display() -> bool:
    """Whether a window can be opened.

    When the display named by the environment does not answer, Qt ends the whole process: a child process tries first.
    """
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not named:
        return False
    return succeeds([sys.executable, "-c", _PROBE], _PROBE_TIMEOUT_S)


class WindowSink(BaseSink):
    """Shows the newest annotated frame. Must be made and used in the main thread.

    Args:
        title: The window's title.
        untrained: The bundle has seeded weights: every frame says so.

    Raises:
        SinkError: There is no display, or this OpenCV was built without windows.
    """

    name = "window"
    shows = True

    def __init__(self, title: str, *, untrained: bool) -> None:
        if not has_display():
            raise SinkError(
                "window: there is no display to open one on; leave --window out, or use --output and --jsonl "
                "(over ssh: ssh -X, or set DISPLAY)"
            )
        self._title = title
        self._untrained = untrained
        self._canvas = Canvas()
        self._shown = False
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def write(self, frame: Frame, detection: Detection) -> None:
        """Shows a frame."""
        image = annotate(frame.image, detection, untrained=self._untrained, canvas=self._canvas)
        if not self._shown:
            scale = min(1.0, 1280 / image.shape[1], 800 / image.shape[0])
            cv2.resizeWindow(self._title, int(image.shape[1] * scale), int(image.shape[0] * scale))
            self._shown = True
        cv2.imshow(self._title, image)

    def skip(self, bad: BadFrame) -> None:
        """Leaves the last image up."""

    def poll(self) -> bool:
        """Serves the window's events; False after q, Esc or the close button."""
        if cv2.waitKey(1) & 0xFF in _QUIT_KEYS:
            return False
        return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1 or not self._shown

    def close(self) -> None:
        """Closes the window."""
        if cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 0:
            cv2.destroyWindow(self._title)
