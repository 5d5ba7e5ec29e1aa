"""Sizes as people write them, back and forth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.system.sizes import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("10K", 10240), ("1.5M", 3 << 19), ("2 GiB", 2 << 30), ("3gb", 3 << 30)]
)
def test_sizes(text, size):
    assert parse_size(text) == size
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1X", "nan", "1e3", "0.1", "G"])
def test_what_is_no_size(text):
    with pytest.raises(SettingsError, match="is no size"):
        parse_size(text)


@given(st.integers(1, 1 << 50))
def test_what_is_shown_can_be_read_and_is_near(size):
    shown = show_size(size)
    assert parse_size(shown) == pytest.approx(size, rel=0.05, abs=1)
    assert len(shown) <= 9, "a number below 1024 with one decimal, and its unit"
