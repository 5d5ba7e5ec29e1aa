"""Cyclic garbage of a stream: collected by the clock, and cheaply."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from kanoclip.runtime.cli.garbage import EVERY_S, GarbageRounds


class Node:
    def __init__(self):
        self.itself = self


@pytest.fixture
def thawed():
    gc.disable()  # no collection but those of the rounds
    yield
    gc.enable()
    gc.unfreeze()


def test_a_round_every_so_often(thawed):
    now = 100.0
    rounds = GarbageRounds(lambda: now)
    for round_number in range(3):
        left = weakref.ref(Node())
        now += EVERY_S - 0.1
        rounds.tick(object())
        assert left() is not None, "too early"
        now += 0.2
        rounds.tick(object())
        assert left() is None, round_number


def test_what_is_loaded_is_looked_at_once(thawed):
    now = 0.0
    rounds = GarbageRounds(lambda: now)
    kept = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    now = EVERY_S
    rounds.tick()
    frozen = gc.get_freeze_count()
    assert frozen - before > len(kept) and len(gc.get_objects()) < 1000
    later = [[] for _ in range(1000)]
    now = 2 * EVERY_S
    rounds.tick()
    assert gc.get_freeze_count() == frozen and len(gc.get_objects()) > len(later), "frozen again: garbage would stay"


def test_a_run_has_them():
    """A stream of 2 s, with the clock of the rounds put forward."""
    program = """
import gc, sys
from kanoclip.runtime.cli import garbage
garbage.EVERY_S = 0.5
from kanoclip.runtime.cli.main import run_main
try:
    run_main()
finally:
    print("frozen", gc.get_freeze_count(), file=sys.stderr)
"""
    source = "test://?width=64&height=64&fps=20"
    command = [sys.executable, "-c", program, "--source", source, "--no-window", "--max-frames", "40", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split("frozen ")[1]) > 10_000
