"""What lies between threads: `Mailbox`, a bounded queue, and `InOrder`, which restores the order of results."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class Policy(str, Enum):
    """What a full mailbox does with one more item."""

    DROP_OLDEST = "drop-oldest"
    """The oldest item is dropped and counted: the writer never waits, and the reader sees the newest."""
    WAIT = "wait"
    """The writer waits: nothing is lost, and the slowest thread sets the pace."""


class MailboxClosedError(Exception):
    """Nothing more can be put in, or taken out."""


class MailboxEmptyError(Exception):
    """Nothing came within the time given."""


class Mailbox(Generic[T]):
    """A bounded first-in first-out queue that can be closed from either end.

    Closing it wakes all threads that wait in it, so that a thread that dies never leaves another one waiting. Each of
    several writers has its own compartment, with its own bound and its own count of drops. Items are taken from the
    compartments in turns, so that a busy writer never makes a slow one wait.

    Args:
        capacity: Items held at most for each writer, at least 1.
        policy: What happens when that is full.
        writers: Number of writers, at least 1.

    Attributes:
        closed: Nothing more can be put in.
    """

    def __init__(self, capacity: int, policy: Policy, writers: int = 1) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: a mailbox holds at least 1 item")
        if writers < 1:
            raise ValueError(f"{writers} writers: a mailbox has at least 1")
        self._capacity = capacity
        self.policy = policy
        self._compartments: list[deque[T]] = [deque() for _ in range(writers)]
        self._turn = 0
        self._changed = threading.Condition()
        self.closed = self._refusing = False
        self._dropped = [0] * writers

    @property
    def dropped(self) -> int:
        """Items that a newer one has pushed out, or that were refused."""
        return sum(self._dropped)

    @property
    def drops(self) -> list[int]:
        """The same by writer."""
        return list(self._dropped)

    def add_writer(self) -> None:
        """Gives one more writer a compartment; its number is the next one."""
        with self._changed:
            self._compartments.append(deque())
            self._dropped.append(0)

    def put(self, item: T, writer: int = 0) -> T | None:
        """Puts an item into the compartment of a writer, from 0; under `Policy.WAIT` this waits for room.

        Returns:
            The item that is lost: the one pushed out to make room, or this one while it refuses all; None for none.

        Raises:
            MailboxClosedError: It is closed, or was closed during the wait.
        """
        items = self._compartments[writer]
        with self._changed:
            if self.policy is Policy.WAIT:
                self._changed.wait_for(lambda: len(items) < self._capacity or self.closed or self._refusing)
            if self.closed:
                raise MailboxClosedError
            full = len(items) >= self._capacity
            self._dropped[writer] += full or self._refusing
            if self._refusing:
                return item
            lost = items.popleft() if full else None
            items.append(item)
            self._changed.notify_all()
            return lost

    def get(self, timeout: float | None = None) -> T:
        """Takes out one item, as `get_some` does."""
        return self.get_some(1, timeout)[0]

    def get_some(self, most: int, timeout: float | None = None, least: int = 1) -> list[T]:
        """Takes out what is there, from the compartments in turns, the oldest first; waits for `least` items only.

        Args:
            most: Most items to take, at least 1.
            timeout: Seconds to wait; None waits until they come or the mailbox closes.
            least: Fewer are left where they are.

        Raises:
            MailboxEmptyError: They did not come in time.
            MailboxClosedError: It is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: sum(map(len, self._compartments)) >= least or self.closed, timeout)
            if sum(map(len, self._compartments)) < least:
                raise MailboxClosedError if self.closed and not any(self._compartments) else MailboxEmptyError
            some: list[T] = []
            while any(self._compartments) and len(some) < most:
                items = self._compartments[self._turn]
                self._turn = (self._turn + 1) % len(self._compartments)
                if items:
                    some.append(items.popleft())
            self._changed.notify_all()
            return some

    def refuse(self) -> None:
        """Drops what is inside and all that comes until `accept`: no writer waits for a reader that is stuck."""
        with self._changed:
            self._refusing = True
            self._dropped = [n + len(items) for n, items in zip(self._dropped, self._compartments, strict=True)]
            self._clear()

    def accept(self) -> None:
        """Takes items again."""
        with self._changed:
            self._refusing = False

    def close(self) -> None:
        """Takes no further items; what is inside can still be taken out."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Closes and throws away what is inside; that does not count as dropped."""
        with self._changed:
            self.closed = True
            self._clear()

    def _clear(self) -> None:
        for items in self._compartments:
            items.clear()
        self._changed.notify_all()


class InOrder(Generic[T]):
    """Hands on what threads bring, in the order of its numbers; what comes too early is held until its turn.

    The thread that brings what is due hands on all that waited for it. Only a thread that is far ahead waits: this
    bounds the memory, however slow another one is.

    Args:
        hand_on: Called with one thing at a time; other threads wait meanwhile.
        ahead: By how many numbers a thread may be ahead of what is due, at least 1.
    """

    def __init__(self, hand_on: Callable[[T], None], ahead: int) -> None:
        if ahead < 1:
            raise ValueError(f"{ahead} ahead: at least 1, or nobody could bring what is due")
        self._hand_on = hand_on
        self._ahead = ahead
        self._early: dict[int, T] = {}
        self._due = 0
        self._aborted = False
        self._changed = threading.Condition()

    def put(self, number: int, thing: T) -> None:
        """Brings one thing; numbers start at 0, and each comes once. After an error of `hand_on` nothing goes on."""
        with self._changed:
            self._changed.wait_for(lambda: number - self._due < self._ahead or self._aborted)
            self._early[number] = thing
            while self._due in self._early and not self._aborted:
                # The lock is held meanwhile: this preserves the order, and a slow sink must hold every thread up.
                try:
                    self._hand_on(self._early.pop(self._due))
                except BaseException:
                    self._aborted = True
                    raise
                finally:
                    self._due += 1
                    self._changed.notify_all()

    def abort(self) -> None:
        """Hands nothing on any more, and wakes whoever waits."""
        with self._changed:
            self._aborted = True
            self._early.clear()
            self._changed.notify_all()
