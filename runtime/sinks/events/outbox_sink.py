"""What sinks share that send events to somebody who may be away for a while."""

from __future__ import annotations

import json
from collections.abc import Callable, Sized
from typing import Generic, TypeVar

from kanoclip.runtime.sinks.events.events import EventFilter, Events
from kanoclip.runtime.sinks.events.outbox import Outbox
from kanoclip.runtime.sinks.jsonl import record
from kanoclip.runtime.sinks.outage import Trouble
from kanoclip.runtime.types import BadFrame, Detection, Frame

M = TypeVar("M", bound=Sized)


class OutboxSink(Generic[M]):
    """Keeps the wanted events in an outbox, and tells once that they do not arrive, or not as fast as they come.

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
        self._trouble = Trouble(who, notify, f"up to {queue} messages wait for it")
        self._slow = Trouble(who, notify, meanwhile)
        self._slow_words = slow

    @property
    def dropped(self) -> int:
        """Messages that did not fit into the queue, or were given up."""
        return self._outbox.dropped

    @property
    def trouble(self) -> str | None:
        """Why messages do not arrive, or not all; None while they do."""
        return self._trouble.words or self._slow.words

    def skip(self, bad: BadFrame) -> None:
        """Sends nothing for a picture that could not be read."""

    def _keep(self, message: M) -> None:
        """Puts a message into the outbox."""
        if self._outbox.put(message) and self._trouble.words is None:
            self._slow.begin(self._slow_words, self._outbox.dropped - 1)

    def _give_up_rest(self) -> int:
        """Counts what is left as dropped; returns how much that was."""
        left = len(self._outbox)
        self._outbox.give_up_all()
        return left


def record_bytes(frame: Frame, detection: Detection) -> bytes:
    """A judged frame's record as JSON in ASCII."""
    return json.dumps(record(frame, detection), allow_nan=False, ensure_ascii=True).encode("ascii")
