"""Tab completion in shells: click's own, for all of the project's programs in one script."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, get_completion_class

from kanoclip.runtime.errors import KanoclipError

SHELLS = ("bash", "zsh", "fish")
_FILES = re.compile(r"FILE|PATH|\.(parquet|kanoclip)|BUNDLE")
_FOLDERS = re.compile(r"^(DIR|FOLDER|ROOT)$")

_EPILOG = """
Examples:

\b
  eval "$(kanoclip completion bash)"                                # in ~/.bashrc
  eval "$(kanoclip completion zsh)"                                 # in ~/.zshrc, after compinit
  kanoclip completion fish > ~/.config/fish/conf.d/kanoclip.fish
"""


def script(shell: str, programs: Sequence[str]) -> str:
    """What a shell reads to complete the command lines of some programs.

    Args:
        shell: One of SHELLS.
        programs: Such as `kanoclip-run`. Each is started to complete its own command line.

    Raises:
        KanoclipError: click does not know the shell.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise KanoclipError(f"no completion for {shell}: choose one of {', '.join(SHELLS)}")
    parts = []
    for program in programs:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        one = kind(click.Command(program), {}, program, variable)
        # `source` would start bash to look at its version, once for each program.
        parts.append(one.source_template % one.source_vars())
    return "\n".join(parts)


def paths_of(metavar: str | None) -> str | None:
    """Whether an option's value is a path, by what its help calls it: `file`, `dir`, or None for no path.

    Examples:
        >>> paths_of("PATH|GLOB|URL"), paths_of("FOLDER"), paths_of("HOST:PORT")
        ('file', 'dir', None)
    """
    if metavar is None:
        return None
    if _FOLDERS.search(metavar):
        return "dir"
    return "file" if _FILES.search(metavar) else None


def complete_paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes as a path what `paths_of` says is one; nothing for any other value."""
    kind = paths_of(param.metavar)
    return [] if kind is None else [CompletionItem(incomplete, type=kind)]


def make_command(programs: Sequence[str]) -> click.Command:
    """The command `kanoclip completion`.

    Args:
        programs: Whose command lines it completes.
    """

    @click.command("completion", epilog=_EPILOG)
    @click.argument("shell", type=click.Choice(SHELLS))
    def command(shell: str) -> None:
        """Print what a shell needs to complete kanoclip's commands and options with the Tab key."""
        click.echo(script(shell, programs))

    return command
