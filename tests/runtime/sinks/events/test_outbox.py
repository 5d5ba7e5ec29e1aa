"""The outbox against a model of it: order, bounds, and that every message is somewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.sinks.events.outbox import Outbox

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 30)),
        st.sampled_from([("take", 0), ("arrived", 0), ("arrived", 1), ("give up", 0), ("back", 0), ("all", 0)]),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 5), st.integers(30, 90))
def test_every_message_waits_arrives_or_is_counted_as_dropped(steps, capacity, most):
    box: Outbox[bytes] = Outbox(capacity, most)
    waiting, taken, arrived, dropped, made = [], [], 0, 0, 0
    for step, number in steps:
        if step == "put":
            message = bytes([made % 256]) * number
            made += 1
            waiting.append(message)
            lost = 0
            while waiting and (
                len(waiting) + len(taken) > capacity or sum(map(len, waiting)) + sum(len(m) for _, m in taken) > most
            ):
                waiting.pop(0)
                lost += 1
            assert box.put(message) is (lost > 0)
            dropped += lost
        elif step == "take":
            item = box.take()
            assert (item is None) is (not waiting)
            if item is not None:
                assert item[1] == waiting.pop(0)
                taken.append(item)
        elif step == "arrived" and len(taken) > number:  # also out of order
            box.arrived(taken.pop(number)[0])
            arrived += 1
        elif step == "give up" and taken:
            box.give_up(taken.pop(0)[0])
            dropped += 1
        elif step == "back":
            box.put_back()
            waiting, taken = [m for _, m in taken] + waiting, []
        elif step == "all":
            box.give_up_all()
            dropped += len(waiting) + len(taken)
            waiting, taken = [], []
        assert (len(box), box.taken, box.dropped) == (len(waiting) + len(taken), len(taken), dropped)
        assert made == arrived + dropped + len(box)


def test_what_arrives_after_all_was_given_up_is_not_counted_twice():
    box: Outbox[bytes] = Outbox(3, 100)
    box.put(b"x")
    ticket, _ = box.take()
    box.give_up_all()
    box.arrived(ticket)
    assert (len(box), box.dropped) == (0, 1)


def test_a_box_without_room_makes_no_sense():
    with pytest.raises(ValueError, match="at least 1"):
        Outbox(0, 1)
