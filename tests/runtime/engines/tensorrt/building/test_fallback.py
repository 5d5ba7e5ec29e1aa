from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.engines.tensorrt.building.fallback import find_fallback


class Compare:
    """An engine that is right when all `bad` blocks are in float32; counts how often it is built."""

    def __init__(self, bad):
        self.bad, self.builds = frozenset(bad), 0

    def __call__(self, chosen):
        self.builds += 1
        return self.bad <= chosen


@given(st.data())
def test_finds_exactly_the_bad_blocks(data):
    blocks = data.draw(st.integers(1, 60))
    infer = Compare(data.draw(st.sets(st.integers(0, blocks - 1))))
    assert find_fallback(blocks, infer) == infer.bad


@given(st.data())
def test_what_it_returns_passes_and_needs_every_block_even_where_errors_add_up(data):
    shares = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    bound = data.draw(st.floats(0, 3))

    def passes(chosen):
        return sum(share for block, share in enumerate(shares) if block not in chosen) <= bound

    found = find_fallback(len(shares), passes)
    assert found is not None and passes(found)
    assert all(not passes(found - {block}) for block in found)


def test_one_bad_block_of_47_takes_few_builds():
    infer = Compare({31})
    assert find_fallback(47, infer) == {31}
    assert infer.builds <= 16


def test_none_when_attention_is_not_at_fault():
    assert find_fallback(22, lambda chosen: False) is None


def test_no_blocks():
    assert find_fallback(0, lambda chosen: True) == frozenset()
    assert find_fallback(0, lambda chosen: False) is None
