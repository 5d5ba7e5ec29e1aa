"""What is made at its first use: once by many threads, and again where it could not be made."""

from __future__ import annotations

import threading
import time

import pytest

from kanoclip.runtime.system.once import Once


def test_many_threads_make_it_once():
    made, barrier = [], threading.Barrier(8)

    def make():
        time.sleep(0.05)
        made.append(threading.get_ident())
        return object()

    once, found = Once(make), []

    def use():
        barrier.wait()
        found.append(once.value)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(found) == 8 and len(set(map(id, found))) == 1


def test_nothing_is_a_value_too():
    calls = []
    once = Once(lambda: calls.append(1))
    assert once.value is None and once.value is None and calls == [1]


def test_what_fails_is_tried_again():
    answers = [OSError("full"), 7]

    def make():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    once = Once(make)
    with pytest.raises(OSError, match="full"):
        _ = once.value
    assert once.value == 7 and answers == []
