"""Messages that wait for a receiver that may be away: bounded, in order, and held until they have arrived."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Sized
from typing import Generic, TypeVar

from kanoclip.runtime.sinks.base import BaseSink
from kanoclip.runtime.sinks.events.events import EventFilter, Events
from kanoclip.runtime.sinks.jsonl import record
from kanoclip.runtime.sinks.outage import Outage
from kanoclip.runtime.types import BadFrame, Detection, Frame

M = TypeVar("M", bound=Sized)


class Outbox(Generic[M]):
    """A queue whose messages are taken, and are gone only once their arrival is confirmed.

    When it is full, the oldest message that has not been taken is dropped and counted: the newest events matter most.
    Messages that were taken count towards the bounds too.

    Args:
        capacity: Messages at most, at least 1.
        capacity_bytes: Bytes at most; a message's `len` counts.
    """

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: an outbox holds at least 1 message")
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._waiting: deque[M] = deque()
        self._taken: dict[int, M] = {}  # in the order in which they were taken
        self._next = 0
        self._bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()

    @property
    def dropped(self) -> int:
        """Messages given up so far."""
        with self._lock:
            return self._dropped

    @property
    def taken(self) -> int:
        """Messages taken that have not arrived."""
        with self._lock:
            return len(self._taken)

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting) + len(self._taken)

    def put(self, message: M) -> bool:
        """Puts a message in. If the messages that were taken leave no room for it, it is dropped itself.

        Returns:
            Whether something was dropped.
        """
        with self._lock:
            before = self._dropped
            self._waiting.append(message)
            self._bytes += len(message)
            while self._waiting and (
                len(self._waiting) + len(self._taken) > self._capacity or self._bytes > self._capacity_bytes
            ):
                self._bytes -= len(self._waiting.popleft())
                self._dropped += 1
            return self._dropped > before

    def take(self) -> tuple[int, M] | None:
        """The oldest message that has not been taken, and its ticket; None if there is none."""
        with self._lock:
            if not self._waiting:
                return None
            ticket = self._next
            self._next += 1
            self._taken[ticket] = self._waiting.popleft()
            return ticket, self._taken[ticket]

    def arrived(self, ticket: int) -> None:
        """A message has arrived."""
        self._remove(ticket, dropped=0)

    def give_up(self, ticket: int) -> None:
        """Counts a message that was taken as dropped: it will not be sent."""
        self._remove(ticket, dropped=1)

    def put_back(self) -> None:
        """Lets all that was taken and has not arrived wait again, before all that came after it."""
        with self._lock:
            self._waiting.extendleft(reversed(self._taken.values()))
            self._taken.clear()

    def give_up_all(self) -> None:
        """Counts all that is left as dropped."""
        with self._lock:
            self._dropped += len(self._waiting) + len(self._taken)
            self._waiting.clear()
            self._taken.clear()
            self._bytes = 0

    def _remove(self, ticket: int, dropped: int) -> None:
        with self._lock:
            message = self._taken.pop(ticket, None)
            if message is not None:  # else all messages were given up meanwhile
                self._bytes -= len(message)
                self._dropped += dropped


class OutboxSink(BaseSink, Generic[M]):
    """Puts the wanted events into an outbox, and reports once that they do not arrive, or arrive too slowly.

    Args:
        who: What the messages call the receiver; without credentials.
        notify: Takes a message when something goes wrong, and one when it is over.
        events: Which are wanted.
        queue: Messages that may wait, at most.
        queue_bytes: Their bytes, at most.
        slow: Why messages are dropped although the receiver answers.
        meanwhile: What happens to them then.
    """

    def __init__(
        self,
        who: str,
        notify: Callable[[str], None],
        *,
        events: Events,
        queue: int,
        queue_bytes: int,
        slow: str,
        meanwhile: str,
    ) -> None:
        self._filter = EventFilter(events)
        self._outbox: Outbox[M] = Outbox(queue, queue_bytes)
        self._outage = Outage(who, notify, f"up to {queue} messages wait for it")
        self._slow = Outage(who, notify, meanwhile)
        self._slow_words = slow

    @property
    def dropped(self) -> int:
        """Messages that did not fit into the queue, or were given up."""
        return self._outbox.dropped

    @property
    def outage(self) -> str | None:
        """Why messages do not arrive, or not all; None while they do."""
        return self._outage.words or self._slow.words

    def skip(self, bad: BadFrame) -> None:
        """Sends nothing for an image that could not be read."""

    def _keep(self, message: M) -> None:
        """Puts a message into the outbox."""
        if self._outbox.put(message) and self._outage.words is None:
            self._slow.begin(self._slow_words, self._outbox.dropped - 1)

    def _give_up_rest(self) -> int:
        """Counts what is left as dropped; returns how much that was."""
        left = len(self._outbox)
        self._outbox.give_up_all()
        return left


def record_bytes(frame: Frame, detection: Detection) -> bytes:
    """A scored frame's record as JSON in ASCII."""
    return json.dumps(record(frame, detection), allow_nan=False, ensure_ascii=True).encode("ascii")
