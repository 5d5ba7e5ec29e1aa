"""Options behind a source's name: taken apart, checked, and refused with the text that was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources.gstreamer.query import decimal, split_query, whole

KNOWN = ("width", "fps")


def split(spec):
    return split_query(spec, "csi://", KNOWN, "csi://0?width=W&fps=F")


@pytest.mark.parametrize(
    ("spec", "what", "options"),
    [
        ("csi://0", "0", {}),
        ("csi://", "", {}),
        ("csi://0?", "0", {}),
        ("csi://a/b?width=1", "a/b", {"width": "1"}),
        ("csi://0?width=&fps=25", "0", {"width": "", "fps": "25"}),
        ("csi://0?fps=a%20b", "0", {"fps": "a b"}),
        ("csi://0?fps=1=2", "0", {"fps": "1=2"}),
        ("csi://0?fps=1?2", "0", {"fps": "1?2"}),
    ],
)
def test_taken_apart(spec, what, options):
    assert split(spec) == (what, options)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("csi://0?width", "options are written csi://0"),
        ("csi://0?width=1&", "options are written"),
        ("csi://0?height=1", "unknown option 'height'; known are width, fps"),
        ("csi://0?Width=1", "unknown option 'Width'"),
        ("csi://0?width=1&width=1", "given twice"),
    ],
)
def test_refused(spec, said):
    with pytest.raises(SourceError, match=said) as caught:
        split(spec)
    assert str(caught.value).startswith(spec)


@given(st.integers(1, 4096))
def test_whole_numbers_in_their_range(number):
    assert whole("csi://0", "width", str(number), 1, 4096) == number


@pytest.mark.parametrize("text", ["0", "4097", "-1", "+1", " 1", "1.0", "1e3", "", "²", "٣", "1_000", "0" * 10 + "5"])
def test_what_is_no_whole_number(text):
    with pytest.raises(SourceError, match="width must be a whole number from 1 to 4096"):
        whole("csi://0", "width", text, 1, 4096)


@pytest.mark.parametrize(("text", "value"), [("25", 25.0), ("29.97", 29.97), (".5", 0.5), ("30.", 30.0)])
def test_numbers(text, value):
    assert decimal("csi://0", "fps", text, 0.1, 240) == value


@pytest.mark.parametrize("text", ["", ".", "nan", "inf", "-1", "1e2", "1.2.3", "1,5", "٣", "0", "241", "1" * 17, "1 "])
def test_what_is_no_number(text):
    with pytest.raises(SourceError, match=r"fps must be a number from 0\.1 to 240"):
        decimal("csi://0", "fps", text, 0.1, 240)
