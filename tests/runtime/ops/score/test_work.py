"""The work list on disk."""

from __future__ import annotations

import hashlib
import os

from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.ops.score.listing import Item
from kanoclip.runtime.ops.score.work import WorkList, read_slice

names = st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
items = st.builds(Item, names, st.none() | st.text(max_size=5))


@given(st.lists(items, max_size=40), st.integers(1, 9))
def test_slices_give_back_the_list(tmp_path_factory, given_items, size):
    """Whatever bytes a file's name has, line ends among them."""
    path = tmp_path_factory.mktemp("work") / "list"
    work = WorkList.write(path, given_items, size)
    slices = [work.slice(number) for number in range(work.slices)]
    assert [item for one in slices for item in read_slice(path, one)] == given_items
    assert [one.count for one in slices[:-1]] == [size] * (len(slices) - 1)
    assert work.count == len(given_items) == sum(one.count for one in slices)
    assert work.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_digest_tells_lists_apart(tmp_path):
    lists = [
        [Item("a"), Item("b")],
        [Item("b"), Item("a")],
        [Item("a", "k"), Item("b")],
        [Item("a")],
        [Item("a"), Item("b"), Item("b")],
        [Item('a", "b')],
    ]
    assert len({WorkList.write(tmp_path / "list", one, 2).digest for one in lists}) == len(lists)
