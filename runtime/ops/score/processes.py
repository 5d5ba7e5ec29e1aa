"""Processes of this machine, each with an engine of its own; one that dies is replaced, and its slice done again."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from kanoclip.runtime.errors import BackendError, KanoclipError, one_line
from kanoclip.runtime.ops.score.run_folder import GOES_ON
from kanoclip.runtime.ops.score.scorer import Engine, Part, Scorer
from kanoclip.runtime.ops.score.work import Slice, read_slice

TICK_S = 0.25
AHEAD = 2
"""Slices that a process has: the one in work, and the next, so that it never waits for us."""
DEATHS = 2
"""After so many at the same image, the image is to blame."""
STARTS = 3
"""A process that dies so often before it is ready will not come up."""


@dataclass(frozen=True)
class _Task:
    where: Slice
    left_out: dict[int, str] = field(default_factory=dict)
    careful: bool = False


@dataclass(frozen=True)
class _Ready:
    backend: str
    runs_on: str


@dataclass(frozen=True)
class _Failed:
    reason: str


class _Process:
    """One process and what it has to do."""

    def __init__(self, context: Any, engine: Engine, list_path: Path, number: int) -> None:
        self.tasks: deque[_Task] = deque()
        self.ready = False
        self.place = context.Value("i", 0, lock=False)
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(engine, list_path, theirs, self.place), name=f"kanoclip-score-{number}", daemon=True
        )
        self._process.start()
        theirs.close()  # so that its death closes the pipe

    @property
    def pid(self) -> int:
        """For who watches."""
        return int(self._process.pid)

    def give(self, task: _Task) -> None:
        """Hands on a slice. A task is small: nobody ever waits for room in the pipe."""
        self.tasks.append(task)
        with suppress(OSError):  # it has died, which is found out where it is waited for
            self.connection.send(task)

    def cause(self) -> str:
        """How it died, in a word; waits for its end."""
        self._process.join(5.0)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            return "no answer"
        with suppress(ValueError):
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"signal {-code}"

    def end(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.join()
        self.connection.close()


class Processes:
    """Scores slices in several processes.

    Args:
        engine: What scores; a backend `auto` is settled by the first process, for all.
        count: Processes.
        list_path: The work list.
        on_engine: Gets the backend's name, as `create_backend` takes it, and as it runs, before anything is scored.

    Attributes:
        replaced: Processes that died and were replaced.
    """

    def __init__(
        self,
        engine: Engine,
        count: int,
        list_path: Path,
        on_engine: Callable[[str, str], None] = lambda backend, runs_on: None,
    ) -> None:
        self._engine, self._count, self._list_path, self._on_engine = engine, count, list_path, on_engine
        self._context = multiprocessing.get_context("spawn")  # an engine's threads do not live through a fork
        self._processes: list[_Process] = []
        self._again: deque[_Task] = deque()
        self._deaths: dict[tuple[int, int], int] = {}
        self._starts = 0
        self._known = False
        self._exhausted = False
        self.replaced = 0

    def pids(self) -> list[int]:
        """Of the processes that are there."""
        return [one.pid for one in self._processes]

    def run(self, slices: Iterable[Slice], on_tick: Callable[[int], None] = lambda begun: None) -> Iterator[Part]:
        """Yields each slice's part, in the order in which they are done.

        Args:
            slices: What to do; taken as it is needed.
            on_tick: Called four times a second with how many images are done of the slices in work.

        Raises:
            KanoclipError: The engine fails, or no process comes up. What was yielded stays good.
        """
        todo = iter(slices)
        try:
            self._start()  # alone at first: it settles the engine for the others
            while True:
                for process in self._processes:
                    while process.ready and len(process.tasks) < AHEAD and (task := self._next(todo)) is not None:
                        process.give(task)
                if self._known and self._exhausted and not any(one.tasks for one in self._processes):
                    return
                for connection in wait([one.connection for one in self._processes], TICK_S):
                    process = next(one for one in self._processes if one.connection is connection)
                    part = self._take(process)
                    if part is not None:
                        yield part
                on_tick(sum(one.place.value for one in self._processes if one.tasks))
        finally:
            for process in self._processes:
                process.end()
            self._processes.clear()

    def _start(self) -> None:
        self._processes.append(_Process(self._context, self._engine, self._list_path, len(self._processes)))

    def _next(self, todo: Iterator[Slice]) -> _Task | None:
        if self._again:
            return self._again.popleft()
        where = next(todo, None)
        self._exhausted = where is None
        return None if where is None else _Task(where)

    def _take(self, process: _Process) -> Part | None:
        """What a process says; its part of a slice, where it is one."""
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            self._bury(process)
            return None
        if isinstance(message, _Failed):
            raise BackendError(f"{message.reason}; {GOES_ON}")
        if isinstance(message, _Ready):
            process.ready, self._starts = True, 0
            if not self._known:
                self._known = True
                self._engine = replace(self._engine, backend=message.backend)
                self._on_engine(message.backend, message.runs_on)
                while len(self._processes) < self._count:
                    self._start()
            return None
        process.tasks.popleft()
        part: Part = message
        return part

    def _bury(self, process: _Process) -> None:
        """Puts another process into a dead one's place, and its slices back."""
        cause = process.cause()
        self._processes.remove(process)
        place = process.place.value
        process.end()
        if not process.ready:
            self._starts += 1
            if self._starts == STARTS:
                raise BackendError(
                    f"a process died {STARTS} times before it was ready ({cause}): where memory is short, try fewer "
                    "--processes"
                )
        self._exhausted = False
        for rank, task in reversed(list(enumerate(process.tasks))):
            self._again.appendleft(self._blamed(task, place, cause) if rank == 0 else task)
        self.replaced += process.ready
        self._start()

    def _blamed(self, task: _Task, place: int, cause: str) -> _Task:
        """The task for another try, image by image; without the one that two careful tries have died of."""
        if task.careful:
            key = (task.where.number, place)
            self._deaths[key] = self._deaths.get(key, 0) + 1
            if self._deaths[key] == DEATHS:
                reason = f"the process that scored it died of it ({cause}), {DEATHS} times"
                task = replace(task, left_out={**task.left_out, place: reason})
        return replace(task, careful=True)


def _serve(engine: Engine, list_path: Path, connection: Connection, place: Any) -> None:
    """What a process does: scores slices until there is nobody to tell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the first process ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from kanoclip.runtime.system.memory import give_back_spare_memory, keep_frame_buffers

    keep_frame_buffers()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def on_image(number: int) -> None:
        place.value = number
        if not parent.is_alive():
            os._exit(1)  # killed: what we do is for nobody

    try:
        scorer = Scorer(engine)
        give_back_spare_memory()
        connection.send(_Ready(scorer.backend, scorer.runs_on))
        while True:
            task: _Task = connection.recv()
            items = read_slice(list_path, task.where)
            connection.send(
                scorer.score(task.where.number, items, left_out=task.left_out, careful=task.careful, on_image=on_image)
            )
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except KanoclipError as error:
        connection.send(_Failed(str(error)))
    except Exception as error:
        connection.send(_Failed(f"unexpected {type(error).__name__}: {one_line(error)}"))
