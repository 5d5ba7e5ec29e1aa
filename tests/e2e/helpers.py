"""What tests of the installed commands share."""

from __future__ import annotations

import os
import socket

import cv2

HIDDEN = {"DISPLAY", "WAYLAND_DISPLAY", "FORCE_COLOR", "TTY_COMPATIBLE"}


def environment(**more):
    """Ours, without a display and at a width that breaks no line."""
    return {k: v for k, v in os.environ.items() if k not in HIDDEN} | {"COLUMNS": "200"} | more


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def count_frames(path):
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    return count
