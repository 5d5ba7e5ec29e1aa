"""Results of threads that overtake one another."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.system.queues import InOrder

pytestmark = pytest.mark.timeout(20)


@given(st.permutations(range(12)))
def test_whatever_the_order_of_arrival_they_leave_in_the_order_of_their_numbers(arrival):
    seen = []
    results = InOrder(seen.append, ahead=12)
    for count, number in enumerate(arrival, 1):
        results.put(number, number)
        here = set(arrival[:count])
        assert seen == list(range(next(n for n in range(13) if n not in here))), "all that is due, and no more"


def test_a_thread_far_ahead_waits_and_one_a_little_ahead_does_not():
    seen, results = [], None
    results = InOrder(seen.append, ahead=3)
    results.put(1, "b")
    results.put(2, "c")
    assert seen == []
    runner = threading.Thread(target=results.put, args=(3, "d"))
    runner.start()
    runner.join(0.1)
    assert runner.is_alive()
    results.put(0, "a")
    runner.join()
    assert seen == ["a", "b", "c", "d"]


def test_after_an_error_nothing_more_is_handed_on():
    seen = []

    def hand_on(thing):
        if thing == 1:
            raise RuntimeError("disk full")
        seen.append(thing)

    results = InOrder(hand_on, ahead=8)
    for number in (2, 1):
        results.put(number, number)
    with pytest.raises(RuntimeError, match="disk full"):
        results.put(0, 0)
    results.put(3, 3)
    assert seen == [0]


def test_an_abort_wakes_who_waits():
    seen = []
    results = InOrder(seen.append, ahead=1)
    waiting = threading.Thread(target=results.put, args=(5, "f"))
    waiting.start()
    time.sleep(0.05)
    results.abort()
    waiting.join(5)
    assert not waiting.is_alive()
    results.put(0, "a")
    assert seen == []


def test_many_threads():
    seen, numbers, lock = [], iter(range(400)), threading.Lock()
    results = InOrder(seen.append, ahead=8)

    def work(slow):
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            if slow and number % 7 == 0:
                time.sleep(0.001)
            results.put(number, number)

    threads = [threading.Thread(target=work, args=(number == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == list(range(400))


def test_at_least_one_ahead():
    with pytest.raises(ValueError, match="at least 1"):
        InOrder(print, ahead=0)
