"""How far bulk scoring is: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.ops.score.bulk import State

LINE_S = 60.0
REFRESH_S = 0.1


class ScoreProgress:
    """Use as a context manager; the bar goes away at the end.

    Args:
        console: Where to; standard error, so that standard output stays clean.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            auto_refresh=False,
            speed_estimate_period=120,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("listing", total=None, line="")
        self._step = "listing"
        self._began = monotonic()
        self._next = 0.0
        self._next_line = monotonic() + LINE_S

    def __enter__(self) -> ScoreProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, state: State) -> None:
        """Shows a state; cheap to call often."""
        now = monotonic()
        if state.step != self._step:
            self._step, self._began = state.step, now
            self._bar.reset(self._task, total=state.total, completed=state.earlier, description=state.step)
        elif now < self._next:
            return
        self._next = now + REFRESH_S
        self._bar.update(self._task, completed=state.done, total=state.total, line=self._line(state, now), refresh=True)
        if not self._console.is_terminal and now >= self._next_line:
            self._next_line = now + LINE_S
            of = "" if state.total is None else f" of {state.total:,}"
            left = self._left(state, now)
            line = f"{state.step}: {state.done:,}{of}, {self._line(state, now)}"
            self._console.print(Text(line + ("" if left is None else f", {left} left")))

    def _rate(self, state: State, now: float) -> float:
        return (state.done - state.earlier) / max(now - self._began, 1e-9)

    def _line(self, state: State, now: float) -> str:
        parts = [f"{self._rate(state, now):.1f} images/s"]
        if state.step == "scoring":
            parts += [f"{state.anomalous:,} anomalous", f"{state.unscored:,} unreadable"]
        return ", ".join(parts)

    def _left(self, state: State, now: float) -> timedelta | None:
        rate = self._rate(state, now)
        if state.total is None or rate <= 0:
            return None
        return timedelta(seconds=round((state.total - state.done) / rate))
