"""The alarm, against a window counted anew for every frame."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.detect.alarm import EVERY_FRAME, Alarm, AlarmRule
from kanoclip.runtime.errors import SettingsError

VERDICTS = st.lists(st.booleans(), max_size=60)


@st.composite
def rules(draw):
    of = draw(st.integers(1, 8))
    frames = draw(st.integers(1, of))
    return AlarmRule(frames, of, draw(st.none() | st.integers(0, frames - 1)))


def states(rule, verdicts):
    alarm = Alarm(rule)
    return [alarm.update(verdict) for verdict in verdicts]


def raisings(found):
    return [n for n, up in enumerate(found) if up and not (n and found[n - 1])]


@given(rules(), VERDICTS)
def test_equals_counting_the_window_anew(rule, verdicts):
    up, expected = False, []
    for number in range(len(verdicts)):
        count = sum(verdicts[max(0, number + 1 - rule.of) : number + 1])
        up = count >= rule.frames or (up and count > rule.clears_at)
        expected.append(up)
    assert states(rule, verdicts) == expected


@given(rules(), VERDICTS)
def test_only_an_anomalous_frame_raises_it(rule, verdicts):
    """So it is raised no more often than frames are anomalous, which is what the calibrated rate bounds."""
    assert all(verdicts[number] for number in raisings(states(rule, verdicts)))


@given(VERDICTS)
def test_the_default_repeats_each_verdict(verdicts):
    assert states(EVERY_FRAME, verdicts) == verdicts


@given(rules(), VERDICTS)
def test_a_lower_end_only_holds_it_longer_and_raises_it_no_more_often(rule, verdicts):
    plain, held = (states(AlarmRule(rule.frames, rule.of, clear), verdicts) for clear in (None, rule.clears_at))
    assert all(now or not before for before, now in zip(plain, held, strict=True))
    assert len(raisings(held)) <= len(raisings(plain))


def test_three_of_five():
    verdicts = [bool(int(c)) for c in "1010100000111"]
    assert "".join(str(int(up)) for up in states(AlarmRule(3, 5), verdicts)) == "0000100000001"
    assert "".join(str(int(up)) for up in states(AlarmRule(3, 5, 0), verdicts)) == "0000111110001"[:13]


@given(rules())
def test_a_rule_is_read_as_it_is_written(rule):
    assert AlarmRule.parse(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "3", "3/", "3 of 5", "3/5/1/1", "-1/5", "a/b", "3/5 ", "1_0/20", "3/5\n"])
def test_what_is_no_rule(text):
    with pytest.raises(SettingsError, match=re.escape(repr(text)) + ".*such as 3/5"):
        AlarmRule.parse(text)


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/10001", "3/5/3", "0/0"])
def test_rules_that_contradict_themselves(text):
    with pytest.raises(SettingsError, match=text):
        AlarmRule.parse(text)
