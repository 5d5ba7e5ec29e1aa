"""Table 3: each cumulative row is trained by `kanoclip-train` and evaluated."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import TrainingError
from kanoclip.train.evaluation.paper import ABLATION
from kanoclip.train.evaluation.results import Results
from kanoclip.train.evaluation.tables import percent

PARTS = ("KnPL", "CLIP-VV", "Bi-CMCI", "Conv-Adapter")
_FLAGS = ("--no-knpl", "--no-vv", "--no-bicmci", "--no-conv-adapter")


@dataclass(frozen=True)
class Row:
    """One row: its first `parts` of `PARTS` are on."""

    parts: int

    @property
    def name(self) -> str:
        """For files and messages."""
        return f"row{self.parts + 1}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Of `kanoclip-train`, for the parts that are off."""
        return _FLAGS[self.parts :]

    @property
    def trains(self) -> bool:
        """The first row has nothing that learns: `a photo of a normal [class]` on the plain tower."""
        return self.parts > 0


ROWS = tuple(Row(parts) for parts in range(len(PARTS) + 1))


def check_folder(folder: Path, arguments: Sequence[str]) -> None:
    """Notes a folder's arguments, and refuses others once it holds a row: its rows would not be comparable.

    Raises:
        TrainingError: The folder holds rows of other arguments, or cannot be written.
    """
    note = folder / "arguments.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not note.exists() or not any(folder.glob("row*.safetensors")):
            note.write_text(json.dumps(list(arguments)))
        known = json.loads(note.read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{note} cannot be used ({error}): choose another --checkpoints") from error
    if known != list(arguments):
        raise TrainingError(
            f"{folder} holds rows that were trained with other arguments ({shlex.join(map(str, known))}): choose "
            "another --checkpoints"
        )


def train_row(row: Row, arguments: Sequence[str], folder: Path) -> Path:
    """Trains a row, or goes on with it where it was stopped; nothing is done for a row that is finished.

    Args:
        row: One that trains.
        arguments: Of `kanoclip-train`, without the row's flags and files.
        folder: For the checkpoints.

    Returns:
        Its checkpoint.

    Raises:
        TrainingError: The run failed; its own message has been printed.
    """
    output = folder / f"{row.name}.safetensors"
    if output.exists():
        return output
    resume = ["--resume"] if output.with_suffix(".state.safetensors").exists() else []
    command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "train", *arguments, *row.flags]
    code = subprocess.run([*command, "--output", str(output), *resume], check=False).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise TrainingError(f"training {row.name} failed (exit code {code}): the finished rows in {folder} are saved")
    return output


def run_rows(
    arguments: Sequence[str],
    folder: Path,
    measure: Callable[[Row, Path | None], Results],
    console: Console,
) -> list[tuple[Row, Results]]:
    """Trains and measures every row.

    Args:
        arguments: Of `kanoclip-train`.
        folder: For the checkpoints.
        measure: Measures a row's checkpoint, None for the row that does not train.
        console: For progress.
    """
    check_folder(folder, arguments)
    done = []
    for row in ROWS:
        parts = " + ".join(PARTS[: row.parts]) or "plain CLIP, nothing learned"
        console.print(f"row {row.parts + 1} of {len(ROWS)}: {parts}", highlight=False)
        done.append((row, measure(row, train_row(row, arguments, folder) if row.trains else None)))
    return done


def ablation_lines(done: Sequence[tuple[Row, Results]], dataset: str) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of table 3, the paper's own figures beside ours where it has the dataset."""
    paper = ABLATION.get(dataset)
    headings = [*PARTS, "I-AUROC", "P-AUROC", *(["paper's I", "paper's P"] if paper else [])]
    lines = []
    for row, results in done:
        marks = ["x" if i < row.parts else "" for i in range(len(PARTS))]
        mean = results.mean
        cells = [*marks, percent(mean["image_auroc"]), percent(mean["pixel_auroc"])]
        lines.append(cells + ([f"{value:.1f}" for value in paper[row.parts]] if paper else []))
    return headings, lines


def print_ablation(console: Console, done: Sequence[tuple[Row, Results]], dataset: str) -> None:
    """Prints table 3."""
    headings, lines = ablation_lines(done, dataset)
    table = Table(title=f"ablation on {dataset}, percent; I image, P pixel", header_style="bold", padding=(0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="center" if i < len(PARTS) else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
