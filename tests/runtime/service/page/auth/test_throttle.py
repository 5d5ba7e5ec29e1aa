"""How wrong tokens are slowed down, from one address and from many."""

from __future__ import annotations

import pytest

from kanoclip.runtime.service.page.auth.throttle import (
    FORGOTTEN_AFTER_S,
    FREE_TRIES,
    LONGEST_WAIT_S,
    MAX_ADDRESSES,
    TOTAL_BURST,
    TOTAL_PER_S,
    Throttle,
)


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


def test_wrong_tokens_take_ever_longer():
    clock = Clock()
    throttle = Throttle(clock)
    waits = []
    for _ in range(FREE_TRIES + 9):
        waits.append(throttle.wait_s("10.0.0.1"))
        clock.now += throttle.wait_s("10.0.0.1")
        throttle.failed("10.0.0.1")
    assert waits[:FREE_TRIES] == [0] * FREE_TRIES
    assert waits[FREE_TRIES : FREE_TRIES + 6] == [1, 2, 4, 8, 16, 32]
    assert waits[-1] == LONGEST_WAIT_S
    assert throttle.wait_s("10.0.0.2") == 0
    clock.now += FORGOTTEN_AFTER_S + 1
    assert throttle.wait_s("10.0.0.1") == 0


def test_the_right_token_forgives():
    throttle = Throttle(Clock())
    for _ in range(FREE_TRIES + 1):
        throttle.failed("10.0.0.1")
    assert throttle.wait_s("10.0.0.1") > 0
    throttle.succeeded("10.0.0.1")
    assert throttle.wait_s("10.0.0.1") == 0


def test_many_addresses_share_what_is_left():
    clock = Clock()
    throttle = Throttle(clock)
    tried = 0
    for number in range(10_000):  # an attacker with a new address for each, over 100 s
        if throttle.wait_s(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") == 0:
            throttle.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            tried += 1
        clock.now += 0.01
    assert tried <= TOTAL_BURST + 100 * TOTAL_PER_S + 1
    assert len(throttle._wrong) <= MAX_ADDRESSES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "", True),
    ],
)
def test_an_ipv6_host_has_one_count_for_all_its_addresses(one, other, same):
    throttle = Throttle(Clock())
    for _ in range(FREE_TRIES):
        throttle.failed(one)
    assert (throttle.wait_s(other) > 0) is same
