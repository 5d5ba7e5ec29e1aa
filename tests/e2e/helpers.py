"""What tests of the installed commands share."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import cv2

from kanoclip.runtime.cli.main import invoke

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


def in_process(program, *arguments, cwd=None, env=None):
    """Runs a command here, for what it says of its command line and of its files: no start of Python, none of torch.

    What a library writes past Python to the terminal is caught as well. A file of tests runs at least one command of
    each program in a process of its own.

    Args:
        program: Such as `kanoclip-run`, or `kanoclip` for the group.
        arguments: As a user would give them.
        cwd: The folder to stand in, if not this one.
        env: All the environment's variables, if not ours.
    """
    before = Path.cwd()
    with mock.patch.dict(os.environ, env or {}, clear=env is not None), _descriptor(1) as out, _descriptor(2) as err:
        os.chdir(cwd or before)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = invoke(program, program.partition("-")[2] or None, list(map(str, arguments)))
        finally:
            os.chdir(before)
        said = [_content(file) for file in (out, err)]
    return subprocess.CompletedProcess([program, *arguments], code, *said)


@contextmanager
def _descriptor(number):
    """A file that stands in for a descriptor of this process."""
    saved = os.dup(number)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        os.dup2(file.fileno(), number)
        try:
            yield file
        finally:
            os.dup2(saved, number)
            os.close(saved)


def _content(file):
    file.flush()
    file.seek(0)
    return file.read()
