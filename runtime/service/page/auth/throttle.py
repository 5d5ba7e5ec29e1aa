"""Wrong tokens are answered ever more slowly."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

FREE_TRIES = 3
LONGEST_WAIT_S = 60.0
FORGOTTEN_AFTER_S = 900.0
MAX_ADDRESSES = 1024
TOTAL_BURST = 30
TOTAL_PER_S = 0.5


class Throttle:
    """How long who gave wrong tokens must wait before the next is looked at.

    Each address has `FREE_TRIES`, then waits 1, 2, 4, ... up to `LONGEST_WAIT_S` seconds. All addresses together have
    `TOTAL_BURST` wrong tokens and `TOTAL_PER_S` more a second, against many addresses at once. An attacker can so keep
    others from an answer to a wrong token; the right one is taken at any time, and who is logged in stays so. What
    protects a token from being guessed is its length: what is throttled is the work and the log. Used from the server's
    thread alone.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._left, self._refilled = float(TOTAL_BURST), clock()

    def wait_s(self, address: str) -> float:
        """Seconds until a token from there will be looked at; 0 for now."""
        now = self._clock()
        self._left = min(float(TOTAL_BURST), self._left + (now - self._refilled) * TOTAL_PER_S)
        self._refilled = now
        everybody = 0.0 if self._left >= 1 else (1 - self._left) / TOTAL_PER_S
        count, last = self._wrong.get(_network(address), (0, now))
        if count < FREE_TRIES or now - last > FORGOTTEN_AFTER_S:
            return everybody
        return max(everybody, last + min(2.0 ** (count - FREE_TRIES), LONGEST_WAIT_S) - now)

    def failed(self, address: str) -> None:
        """Counts a wrong token."""
        now, key = self._clock(), _network(address)
        count, last = self._wrong.pop(key, (0, now))
        if now - last > FORGOTTEN_AFTER_S:
            count = 0
        self._wrong[key] = (count + 1, now)
        self._left -= 1
        while len(self._wrong) > MAX_ADDRESSES:
            self._wrong.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forgets an address's wrong tokens."""
        self._wrong.pop(_network(address), None)


def _network(address: str) -> str:
    """An IPv4 address, or the /64 that an IPv6 host may choose its address from."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
