"""Several sources told apart: names in messages, in frames and in files."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import BaseSource
from kanoclip.runtime.sources.several import distinct, file_names, together

NAMES = st.lists(
    st.one_of(
        st.sampled_from(
            ["camera 0", "camera 0 (2)", "rtsp://***@10.0.0.5/live", "/data/a/clip.mp4", "/data/b/clip.mp4", "CLIP", ""]
        ),
        st.text(max_size=90),
    ),
    min_size=1,
    max_size=8,
)


class Source(BaseSource):
    fps = count = root = None

    def __init__(self, name, live):
        self.name, self.live = name, live


@given(NAMES)
def test_names_differ_and_the_first_of_a_kind_keeps_its_own(names):
    found = distinct(names)
    assert len(set(found)) == len(names) == len(found)
    for number, (name, chosen) in enumerate(zip(names, found, strict=True)):
        assert chosen.startswith(name)
        if name not in names[:number]:
            assert chosen == name


@given(NAMES)
def test_file_names_differ_on_any_file_system_and_are_harmless(names):
    names = distinct(names)
    found = file_names(names)
    assert list(found) == names
    assert len({one.lower() for one in found.values()}) == len(names)
    for one in found.values():
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", one) and len(one) < 70
        assert one not in {".", ".."}


def test_file_names_tell_which_source_it_is():
    names = [
        "camera 0",
        "rtsp://***@10.0.0.5:554/live?x=1",
        "/data/a/clip.mp4",
        "/data/b/clip.mp4",
        "csi://0",
        "test://",
    ]
    assert list(file_names(names).values()) == ["camera-0", "10.0.0.5-554-live-x-1", "clip", "clip-2", "0", "source"]


def test_one_stays_as_it_is_and_live_ones_do_not_mix_with_files():
    one = Source("a", True)
    assert together([one]) == [one]
    assert [source.name for source in together([one, Source("a", True)])] == ["a", "a (2)"]
    with pytest.raises(SourceError, match=r"a is live and b.mp4 is not"):
        together([one, Source("b.mp4", False)])
