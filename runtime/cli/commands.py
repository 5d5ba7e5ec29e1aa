"""Which commands there are: the runtime's, and those that the project's other parts register.

The other parts stand above the runtime, which may not import them: they register a function for each command in the
group `kanoclip.commands` of pyproject.toml's entry points. The function's docstring is the command's line in
`kanoclip --help`, and calling the function imports the command, with all that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Protocol

import click

DISTRIBUTION = "kanoclip-edge"
GROUP = "kanoclip.commands"


class Opener(Protocol):
    """Imports one command."""

    __doc__: str | None

    def __call__(self) -> click.Command:
        """The command."""
        ...


def run() -> click.Command:
    """Score frames of a camera, video, stream or images."""
    from kanoclip.runtime.cli.run import command

    return command


def doctor() -> click.Command:
    """Check this machine and whether it gives a bundle's answers."""
    from kanoclip.runtime.cli.doctor import command

    return command


def calibrate() -> click.Command:
    """Set a bundle's thresholds by good frames."""
    from kanoclip.runtime.cli.fitting.calibrate import command

    return command


def learn() -> click.Command:
    """Learn a part from good frames, and set the thresholds by them."""
    from kanoclip.runtime.cli.fitting.learn import command

    return command


def score() -> click.Command:
    """Score any number of images into one table."""
    from kanoclip.runtime.cli.score import command

    return command


def report() -> click.Command:
    """Show a table of scores as one page."""
    from kanoclip.runtime.cli.report import command

    return command


def bundle() -> click.Command:
    """Bring bundles to many boxes, signed, and back."""
    from kanoclip.runtime.cli.bundle.command import command

    return command


def completion() -> click.Command:
    """Complete commands and options in bash, zsh or fish."""
    from kanoclip.runtime.cli.terminal.completion import make_command

    return make_command(programs())


RUNTIME: Mapping[str, Opener] = {
    "run": run,
    "doctor": doctor,
    "learn": learn,
    "calibrate": calibrate,
    "score": score,
    "report": report,
    "bundle": bundle,
    "completion": completion,
}
"""These need no registration: they work from a source tree that is not installed, too."""
WITHOUT_PROGRAM = frozenset({"completion"})
"""Commands of `kanoclip` alone; each other one is a program too, such as `kanoclip-run`."""


def registered() -> Mapping[str, metadata.EntryPoint]:
    """The other parts' commands by name; none where the project is not installed.

    Only this project's own: another package's mistake must not end `kanoclip --help`.
    """
    try:
        entries = metadata.distribution(DISTRIBUTION).entry_points
    except metadata.PackageNotFoundError:
        return {}
    return {entry.name: entry for entry in entries.select(group=GROUP)}


def command_lines() -> list[tuple[str, str]]:
    """Each command's name and its line in the help, without importing the command."""
    openers = [*RUNTIME.items(), *((name, _opener(entry)) for name, entry in registered().items())]
    return [(name, (opener.__doc__ or "").strip()) for name, opener in openers]


def programs() -> list[str]:
    """The names of all programs."""
    return ["kanoclip", *(f"kanoclip-{name}" for name in (*RUNTIME, *registered()) if name not in WITHOUT_PROGRAM)]


def open_command(name: str) -> click.Command:
    """Imports a command.

    Raises:
        click.UsageError: There is none of that name, or the parts that may have it are not installed.
        ModuleNotFoundError: What it needs is not installed.
    """
    if name in RUNTIME:
        return RUNTIME[name]()
    others = registered()
    if name in others:
        return _opener(others[name])()
    if not others:
        raise click.UsageError(
            f"no command {name!r}: those for training, export and benchmarks are found once the project is installed; "
            "run `pip install -e .` in its folder (again, where it was installed before they were registered)"
        )
    raise click.UsageError(f"no command {name!r}: choose one of {', '.join([*RUNTIME, *others])}")


def _opener(entry: metadata.EntryPoint) -> Opener:
    loaded: Opener = entry.load()
    return loaded
