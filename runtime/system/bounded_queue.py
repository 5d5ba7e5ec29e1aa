"""The bounded queue between the threads of the runtime."""

from __future__ import annotations

import threading
from collections import deque
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

    Unlike `queue.Queue` it can drop its oldest item. Closing it wakes all threads that wait in it, so that a thread
    that dies never leaves another one waiting.

    Each of several writers has its own compartment, with its own bound and its own count of drops. Items are taken from
    the compartments in turns, so that a busy writer never makes a slow one wait.

    Args:
        capacity: Items held at most for each writer, at least 1.
        policy: What happens when that is full.
        writers: Number of writers, at least 1.

    Attributes:
        policy: As given.
    """

    def __init__(self, capacity: int, policy: Policy, writers: int = 1) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: a mailbox holds at least 1 item")
        if writers < 1:
            raise ValueError(f"{writers} writers: a mailbox has at least 1")
        self._capacity = capacity
        self.policy = policy
        self._compartments: list[deque[T]] = [deque() for _ in range(writers)]
        self._count = 0
        self._turn = 0
        self._changed = threading.Condition()
        self._closed = self._refusing = False
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
        """Puts an item in; under `Policy.WAIT` this waits for room.

        Args:
            item: What to put in.
            writer: The number of the writer, from 0.

        Returns:
            The item that is lost: the one pushed out to make room, or this one while it refuses all; None for none.

        Raises:
            MailboxClosedError: It is closed, or was closed during the wait.
        """
        items = self._compartments[writer]
        with self._changed:
            if self.policy is Policy.WAIT:
                while len(items) >= self._capacity and not (self._closed or self._refusing):
                    self._changed.wait()
            if self._closed:
                raise MailboxClosedError
            if self._refusing:
                self._dropped[writer] += 1
                return item
            evicted = None
            if len(items) >= self._capacity:
                evicted = items.popleft()
                self._dropped[writer] += 1
            else:
                self._count += 1
            items.append(item)
            self._changed.notify_all()
            return evicted

    def get(self, timeout: float | None = None) -> T:
        """Takes out the oldest item of the compartment whose turn it is; waits for one.

        Args:
            timeout: Seconds to wait; None waits until something comes or the mailbox closes.

        Raises:
            MailboxEmptyError: Nothing came in time.
            MailboxClosedError: It is closed and empty.
        """
        return self.get_some(1, timeout)[0]

    def get_some(self, most: int, timeout: float | None = None) -> list[T]:
        """Takes out as many items as are there; waits for the first only.

        Args:
            most: Most items to take, at least 1.
            timeout: As `get` takes it.

        Raises:
            MailboxEmptyError: Nothing came in time.
            MailboxClosedError: It is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count or self._closed, timeout)
            if not self._count:
                raise MailboxClosedError if self._closed else MailboxEmptyError
            taken = min(most, self._count)
            some: list[T] = []
            while len(some) < taken:
                items = self._compartments[self._turn]
                self._turn = (self._turn + 1) % len(self._compartments)
                if items:
                    some.append(items.popleft())
            self._count -= taken
            self._changed.notify_all()
            return some

    def refuse(self) -> None:
        """Drops what is inside and all that comes until `accept`: no writer waits for a reader that is stuck."""
        with self._changed:
            self._refusing = True
            for writer, items in enumerate(self._compartments):
                self._dropped[writer] += len(items)
                items.clear()
            self._count = 0
            self._changed.notify_all()

    def accept(self) -> None:
        """Takes items again."""
        with self._changed:
            self._refusing = False

    def close(self) -> None:
        """Takes no further items; what is inside can still be taken out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Closes and throws away what is inside; that does not count as dropped."""
        with self._changed:
            for items in self._compartments:
                items.clear()
            self._count = 0
            self._closed = True
            self._changed.notify_all()
