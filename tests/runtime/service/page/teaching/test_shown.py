"""What a person points at may have gone by meanwhile, and is held for a while."""

from __future__ import annotations

import numpy as np
from page_helpers import a_frame

from kanoclip.runtime.service.page.teaching import shown as module
from kanoclip.runtime.service.page.teaching.shown import MOST, Shown


def test_the_last_frames_are_held_and_older_ones_go(monkeypatch):
    shown = Shown()
    for number in range(1, MOST + 3):
        shown.put(number, *a_frame(number))
    assert shown.get(2) is None and shown.get(3)[0].index == 3 and shown.get(MOST + 2) is not None
    monkeypatch.setattr(module, "MOST_BYTES", 3 * a_frame()[0].image.nbytes)
    shown.put(99, *a_frame(99))
    assert [shown.get(number) is not None for number in (MOST, MOST + 1, MOST + 2, 99)] == [False, True, True, True]
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    shown.put(100, *a_frame(100))
    assert shown.get(99) is None and shown.get(100) is not None, "the newest one however large"


def test_a_frozen_frame_stays():
    shown = Shown()
    shown.put(1, *a_frame(1))
    assert shown.freeze(1) and not shown.freeze(7)
    for number in range(2, MOST + 9):
        shown.put(number, *a_frame(number))
    assert shown.freeze(1) and np.array_equal(shown.get(1)[0].image, a_frame(1)[0].image)
    assert shown.freeze(MOST) and shown.get(1) is None
