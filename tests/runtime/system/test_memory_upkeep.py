"""Memory of a stream for months: cyclic garbage collected by the clock, and cheaply; spare memory given back."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from itertools import pairwise

import pytest
from glibc_arenas import PRINTED, further_heaps

from kanoclip.runtime.system.memory import COLLECTED_EVERY_S, GIVEN_BACK_EVERY_S, Upkeep


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
    upkeep = Upkeep(lambda: now, list)
    for round_number in range(3):
        left = weakref.ref(Node())
        now += COLLECTED_EVERY_S - 0.1
        upkeep.tick(object())
        assert left() is not None, "too early"
        now += 0.2
        upkeep.tick(object())
        assert left() is None, round_number


def test_what_is_loaded_is_looked_at_once(thawed):
    now = 0.0
    upkeep = Upkeep(lambda: now, list)
    kept = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    now = COLLECTED_EVERY_S
    upkeep.tick()
    frozen = gc.get_freeze_count()
    assert frozen - before > len(kept) and len(gc.get_objects()) < 1000
    later = [[] for _ in range(1000)]
    now = 2 * COLLECTED_EVERY_S
    upkeep.tick()
    assert gc.get_freeze_count() == frozen and len(gc.get_objects()) > len(later), "frozen again: garbage would stay"


def test_spare_memory_goes_back_after_the_start_and_then_now_and_again(thawed):
    now, given_back = 0.0, []
    upkeep = Upkeep(lambda: now, lambda: given_back.append(now))
    while now < 2.5 * GIVEN_BACK_EVERY_S:
        upkeep.tick()
        now += 10.0
    assert given_back[0] == COLLECTED_EVERY_S and len(given_back) == 3
    assert all(
        GIVEN_BACK_EVERY_S <= two - one <= GIVEN_BACK_EVERY_S + 2 * COLLECTED_EVERY_S
        for one, two in pairwise(given_back)
    )


@pytest.mark.nightly
def test_a_run_has_it():
    """A stream of 2 s, with its clock put forward; all of its threads share a heap."""
    program = f"""
import gc, sys
from functools import partial
from kanoclip.runtime.cli import run
from kanoclip.runtime.system import memory as upkeep
upkeep.COLLECTED_EVERY_S = 0.5
run.Upkeep = partial(upkeep.Upkeep, give_back=lambda: print("given back", file=sys.stderr))
from kanoclip.runtime.cli.main import run_main
try:
    run_main()
finally:
    {PRINTED}
    print("frozen", gc.get_freeze_count(), file=sys.stderr)
"""
    source = "test://?width=64&height=64&fps=20"
    command = [sys.executable, "-c", program, "--source", source, "--no-window", "--max-frames", "40", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split("frozen ")[1]) > 10_000
    assert done.stderr.count("given back") == 1
    assert further_heaps(done.stdout) <= 2, "left alone it has one for most of its threads"
