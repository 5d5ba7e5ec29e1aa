"""The mailbox against a model of it, and under real threads."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.system.queues import Mailbox, MailboxClosedError, MailboxEmptyError, Policy


@given(capacity=st.integers(1, 5), steps=st.lists(st.sampled_from(["put", "get"]), max_size=60))
def test_drop_oldest_behaves_like_a_bounded_deque(capacity, steps):
    box = Mailbox(capacity, Policy.DROP_OLDEST)
    model, dropped = deque(), 0
    for number, step in enumerate(steps):
        if step == "put":
            expected = model.popleft() if len(model) == capacity else None
            dropped += expected is not None
            model.append(number)
            assert box.put(number) == expected
        elif model:
            assert box.get(timeout=0) == model.popleft()
        else:
            with pytest.raises(MailboxEmptyError):
                box.get(timeout=0)
        assert box.dropped == dropped


@settings(max_examples=20, deadline=None)
@given(capacity=st.integers(1, 4), total=st.integers(0, 60), policy=st.sampled_from(list(Policy)))
def test_across_threads_order_is_kept_and_every_item_is_read_or_counted(capacity, total, policy):
    box = Mailbox(capacity, policy)

    def write():
        for number in range(total):
            box.put(number)
        box.close()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while True:
        try:
            seen.append(box.get(timeout=5))
        except MailboxClosedError:
            break
    writer.join()
    assert seen == sorted(seen)
    assert len(seen) + box.dropped == total
    if policy is Policy.WAIT:
        assert seen == list(range(total))
    elif total:
        assert seen[-1] == total - 1  # the newest is never the one that goes


def test_a_waiting_writer_is_held_until_there_is_room():
    box = Mailbox(1, Policy.WAIT)
    box.put(1)
    done = threading.Event()

    def write():
        box.put(2)
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert not done.wait(0.1)
    assert box.get() == 1
    assert done.wait(2)
    assert box.get() == 2


@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_wakes_writer_and_reader(how):
    full, empty = Mailbox(1, Policy.WAIT), Mailbox(1, Policy.WAIT)
    full.put(1)
    raised = []

    def expect(call):
        with pytest.raises(MailboxClosedError):
            call()
        raised.append(1)

    threads = [threading.Thread(target=expect, args=(c,)) for c in (lambda: full.put(2), empty.get)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    getattr(full, how)()
    getattr(empty, how)()
    for thread in threads:
        thread.join(2)
    assert raised == [1, 1]


def test_close_leaves_what_is_inside_and_abort_does_not():
    for how, left in (("close", 1), ("abort", 0)):
        box = Mailbox(3, Policy.DROP_OLDEST)
        box.put("a")
        getattr(box, how)()
        if left:
            assert box.get() == "a"
        with pytest.raises(MailboxClosedError):
            box.get()
        with pytest.raises(MailboxClosedError):
            box.put("b")
        assert box.dropped == 0


def test_a_mailbox_holds_at_least_one_item():
    with pytest.raises(ValueError, match="capacity is 0"):
        Mailbox(0, Policy.WAIT)


@given(waiting=st.integers(1, 9), most=st.integers(1, 12))
def test_some_are_the_oldest_and_as_many_as_are_there(waiting, most):
    box = Mailbox(9, Policy.WAIT)
    for number in range(waiting):
        box.put(number)
    assert box.get_some(most, timeout=0) == list(range(min(most, waiting)))
    box.close()
    if waiting > most:
        assert box.get_some(99) == list(range(most, waiting))
    with pytest.raises(MailboxClosedError):
        box.get_some(1)


def test_some_make_room_for_a_writer_that_waits():
    box = Mailbox(3, Policy.WAIT)
    writer = threading.Thread(target=lambda: [box.put(number) for number in range(6)])
    writer.start()
    taken = []
    while len(taken) < 6:
        taken += box.get_some(3, timeout=5)
    writer.join(5)
    assert not writer.is_alive() and taken == list(range(6))


def test_some_wait_for_the_first_only():
    with pytest.raises(MailboxEmptyError):
        Mailbox(1, Policy.WAIT).get_some(4, timeout=0.01)


@given(
    capacity=st.integers(1, 3),
    writers=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["put", "get"]), st.integers(0, 3), st.integers(1, 5)), max_size=60),
)
def test_each_writer_has_a_bounded_compartment_and_is_read_in_turns(capacity, writers, steps):
    box = Mailbox(capacity, Policy.DROP_OLDEST, writers)
    models, dropped = [deque() for _ in range(writers)], [0] * writers
    for number, (step, writer, most) in enumerate(steps):
        writer %= writers
        if step == "put":
            expected = models[writer].popleft() if len(models[writer]) == capacity else None
            dropped[writer] += expected is not None
            models[writer].append((writer, number))
            assert box.put((writer, number), writer) == expected
        elif any(models):
            some = box.get_some(most, timeout=0)
            assert len(some) == min(most, sum(map(len, models)))
            shares = [sum(item[0] == writer for item in some) for writer in range(writers)]
            for writer, model in enumerate(models):
                assert [item for item in some if item[0] == writer] == [model.popleft() for _ in range(shares[writer])]
            left = [writer for writer, model in enumerate(models) if model]
            assert all(shares[writer] >= max(shares) - 1 for writer in left), "nobody gets two turns before another"
        assert box.drops == dropped and box.dropped == sum(dropped)


def test_a_writer_waits_for_its_own_compartment_only():
    box = Mailbox(1, Policy.WAIT, 2)
    box.put("a")
    waiting = threading.Thread(target=box.put, args=("b",))
    waiting.start()
    box.put("x", 1)
    waiting.join(0.05)
    assert waiting.is_alive()
    assert box.get_some(2) == ["a", "x"]
    waiting.join(2)
    assert not waiting.is_alive() and box.get_some(2) == ["b"]
    box.close()
    with pytest.raises(MailboxClosedError):
        box.put("y", 1)
    with pytest.raises(ValueError, match="0 writers"):
        Mailbox(1, Policy.WAIT, 0)


def test_one_that_refuses_holds_no_writer_up_and_counts_what_it_loses():
    box = Mailbox(2, Policy.WAIT, 2)
    box.put("a")
    box.put("b")
    waiting = threading.Thread(target=box.put, args=("c",))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    box.refuse()
    waiting.join(2)
    assert not waiting.is_alive() and box.put("x", 1) == "x"
    assert box.drops == [3, 1]
    box.accept()
    assert box.put("d") is None and box.get_some(5) == ["d"] and box.dropped == 4
