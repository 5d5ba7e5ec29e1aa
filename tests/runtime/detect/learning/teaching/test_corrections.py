"""The rule: a threshold that gives every labelled frame its verdict, as near to the old one as can be."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given
from references import memory

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.learning.limits import limits_by, rate_of
from kanoclip.runtime.detect.learning.teaching.corrections import (
    MARGIN,
    MOST_IMAGES,
    bounded,
    false_alarms,
    placed,
    ruled,
)
from kanoclip.runtime.detect.reference.memory import Correction, Label

SHARES = st.floats(0, 1, width=32)


def correction(label, score, *, reference=None, image=b"x", name="1.png"):
    return Correction(label, name, "ab" * 32, "2026-01-02T03:04:05+00:00", 0.5, 0.5, score, reference, image, (8, 8))


@given(SHARES, st.lists(SHARES, max_size=4), st.lists(SHARES, max_size=4))
@example(0.5, [0.5], [np.nextafter(np.float32(0.5), np.float32(1)).item()])
@example(0.5, [1.0], [])
@example(0.5, [], [0.0])
def test_labels_decide_where_they_can(threshold, fine, bad):
    found = placed(threshold, fine, bad)
    assert 0 <= found <= 1 and found == np.float32(found)
    wrong = [score for score in fine if score >= found], [score for score in bad if score < found]
    if max(fine, default=0.0) < min(bad, default=1.0) or not fine:
        assert wrong == ([], []), "they can be told apart"
    assert wrong[1] == [], "a labelled defect is found in any case"
    right = not any(score >= threshold for score in fine) and not any(score < threshold for score in bad)
    assert (found == threshold) >= right, "what is right for all stays"


def test_a_threshold_gives_way_by_no_more_than_the_margin():
    assert placed(0.5, [0.7], [0.9]) == pytest.approx(0.7 + MARGIN)
    assert placed(0.5, [0.1], [0.3]) == pytest.approx(0.3 - MARGIN)
    assert 0.7 < placed(0.5, [0.7], [0.7 + MARGIN / 2]) <= 0.7 + MARGIN / 2


def test_thresholds_by_references_stay_so_and_say_what_changed_them():
    learned = memory(20)
    start = limits_by(learned, Thresholds(0.5, 0.5, 7, "made up"), None, "numpy", "2026-01-02")
    assert ruled(start, learned) == start
    one = replace(learned, corrections=(correction(Label.BAD, 0.1),))
    lowered = ruled(start, one)
    assert lowered.image == lowered.pixel == pytest.approx(0.1 - MARGIN) and lowered.min_area == 7
    assert lowered.origin.startswith(start.origin) and "; corrected: lowered from" in lowered.origin
    assert rate_of(lowered) == rate_of(start), "the next step begins with the references again"
    again = ruled(lowered, one)
    assert again.origin.count("corrected") <= 1


def test_a_reference_that_was_added_for_its_score_sets_no_threshold():
    """Or every correction of a false alarm would raise it for all."""
    learned = memory(20)
    high = replace(
        learned,
        names=(*learned.names, "odd.png"),
        loo_scores=np.append(learned.loo_scores, np.float32(0.99)),
        loo_peaks=np.append(learned.loo_peaks, np.float32(0.99)),
        corrections=(correction(Label.FINE, 0.2, reference=20),),
    )
    before = Thresholds(0.5, 0.5, 0, "made up")
    start, now = (limits_by(one, before, None, "numpy", "2026-01-02") for one in (learned, high))
    assert now == start and false_alarms(high, 0.98) == pytest.approx(1 / 21)
    assert false_alarms(high, 0.0) == 1


def test_old_corrections_lose_their_images_and_their_say():
    many = [correction(Label.BAD, 0.1, name=f"{n}.png") for n in range(MOST_IMAGES + 3)]
    kept = bounded(many)
    assert [bool(one.image) for one in kept] == [False] * 3 + [True] * MOST_IMAGES
    assert len(replace(memory(3), corrections=kept).corrected(Label.BAD)) == MOST_IMAGES
