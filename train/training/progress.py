"""What a person sees of a run, and what TensorBoard gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.train.training.objective import PARTS
from kanoclip.train.training.state import Progress

_SHOWN = ("loss", "kd", "kd_active", "global", "local")


class ConsoleListener:
    """A bar over the steps, and a line for each epoch. A context manager."""

    def __init__(self, console: Console, accelerator: Accelerator, *, tensorboard: bool, quiet: bool) -> None:
        """Writes to a console, and to the accelerator's trackers where `tensorboard` is on."""
        self.console, self.accelerator, self.tensorboard, self.quiet = console, accelerator, tensorboard, quiet
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[parts]}"),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._epochs = self._steps = 0

    def __enter__(self) -> ConsoleListener:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def started(self, epochs: int, steps: int, progress: Progress) -> None:
        """Sets the bar up."""
        self._epochs, self._steps = epochs, steps
        done = progress.epoch * steps + progress.step
        self._task = self.bar.add_task("training", total=epochs * steps, completed=done, parts="")
        if done:
            self._print(f"going on at epoch {progress.epoch + 1} of {epochs}, step {progress.step + 1} of {steps}")
        self._epoch = progress.epoch

    def stepped(self, step: int, means: Mapping[str, float]) -> None:
        """Moves the bar."""
        self.bar.update(self._task, completed=self._epoch * self._steps + step, parts=_line(means))
        if self.tensorboard:
            self.accelerator.log({f"step/{name}": means[name] for name in PARTS}, self._epoch * self._steps + step)

    def finished_epoch(self, record: Mapping[str, Any]) -> None:
        """Prints an epoch's line."""
        self._epoch = int(record["epoch"])
        rate = record["pictures"] / record["seconds"]
        share = record["from_cache"] / record["pictures"]
        self._print(
            f"epoch {self._epoch}/{self._epochs}  {_line(record)}  {record['seconds']:.1f} s, "
            f"{rate:.1f} images/s, {share:.0%} from the cache"
        )
        if self.tensorboard:
            values = {f"epoch/{name}": record[name] for name in PARTS}
            self.accelerator.log({**values, "epoch/pictures_per_second": rate}, self._epoch)

    def _print(self, text: str) -> None:
        if not self.quiet:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _line(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {values[name]:.4f}" for name in _SHOWN)
