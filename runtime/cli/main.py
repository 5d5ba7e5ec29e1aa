"""The `kanoclip` command: subcommands that are imported only when used, and one place that reports errors."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from kanoclip.runtime.cli.commands import DISTRIBUTION, command_lines, open_command
from kanoclip.runtime.cli.terminal.stdout import STDOUT
from kanoclip.runtime.cli.terminal.version import version_option
from kanoclip.runtime.errors import KanoclipError, one_line, printable
from kanoclip.runtime.system.net import redact_text

_EXTRA_OF = {
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "tensorrt": "gpu",
    "cuda": "gpu",
    "pycuda": "gpu",
    "openai": "knowledge",
    "pyarrow": "score",
    "ray": "score,ray",
    "fsspec": "fleet",
    "cryptography": "fleet",
    "tritonclient": "triton",
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE})
_DEFAULT_EXTRA = "export,cpu"
_LONGEST = 10_000
"""Characters of a message that are looked through for credentials."""


class LazyGroup(click.Group):
    """A group whose commands are imported only when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return [name for name, _ in command_lines()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        return load_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(command_lines())


def load_command(name: str) -> click.Command:
    """Imports a subcommand and gives it, and those below it, the `--debug` flag that every command has."""
    command = open_command(name)
    for one in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
        if not any(parameter.name == "debug" for parameter in one.params):
            one.params.append(_debug_option())
    return command


def _debug_option() -> click.Option:
    """The flag itself does nothing: `invoke` looks for it before anything is imported or parsed."""
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")


@click.group(cls=LazyGroup, invoke_without_command=True, params=[version_option(DISTRIBUTION), _debug_option()])
@click.pass_context
def group(ctx: click.Context) -> None:
    """Zero-shot visual anomaly detection that runs where the camera is."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """Entry point of `kanoclip`."""
    sys.exit(invoke("kanoclip", None, sys.argv[1:]))


def run_main() -> NoReturn:
    """Entry point of `kanoclip-run`."""
    sys.exit(invoke("kanoclip-run", "run", sys.argv[1:]))


def doctor_main() -> NoReturn:
    """Entry point of `kanoclip-doctor`."""
    sys.exit(invoke("kanoclip-doctor", "doctor", sys.argv[1:]))


def learn_main() -> NoReturn:
    """Entry point of `kanoclip-learn`."""
    sys.exit(invoke("kanoclip-learn", "learn", sys.argv[1:]))


def calibrate_main() -> NoReturn:
    """Entry point of `kanoclip-calibrate`."""
    sys.exit(invoke("kanoclip-calibrate", "calibrate", sys.argv[1:]))


def score_main() -> NoReturn:
    """Entry point of `kanoclip-score`."""
    sys.exit(invoke("kanoclip-score", "score", sys.argv[1:]))


def report_main() -> NoReturn:
    """Entry point of `kanoclip-report`."""
    sys.exit(invoke("kanoclip-report", "report", sys.argv[1:]))


def bench_main() -> NoReturn:
    """Entry point of `kanoclip-bench`."""
    sys.exit(invoke("kanoclip-bench", "bench", sys.argv[1:]))


def export_main() -> NoReturn:
    """Entry point of `kanoclip-export`."""
    sys.exit(invoke("kanoclip-export", "export", sys.argv[1:]))


def train_main() -> NoReturn:
    """Entry point of `kanoclip-train`."""
    sys.exit(invoke("kanoclip-train", "train", sys.argv[1:]))


def eval_main() -> NoReturn:
    """Entry point of `kanoclip-eval`."""
    sys.exit(invoke("kanoclip-eval", "eval", sys.argv[1:]))


def knowledge_main() -> NoReturn:
    """Entry point of `kanoclip-knowledge`."""
    sys.exit(invoke("kanoclip-knowledge", "knowledge", sys.argv[1:]))


def data_main() -> NoReturn:
    """Entry point of `kanoclip-data`."""
    sys.exit(invoke("kanoclip-data", "data", sys.argv[1:]))


def bundle_main() -> NoReturn:
    """Entry point of `kanoclip-bundle`."""
    sys.exit(invoke("kanoclip-bundle", "bundle", sys.argv[1:]))


def invoke(prog_name: str, name: str | None, arguments: Sequence[str]) -> int:
    """Runs a command and reports any error in one line on standard error, JSON where log lines are.

    Args:
        prog_name: The program's name, as the user typed it.
        name: The command's name, or None for the group.
        arguments: The command line after the program's name.

    Returns:
        The exit code: what the command returned; 1 after a failure, 2 after a usage error, 130 after Ctrl-C.
    """
    debug = "--debug" in arguments
    _open_closed_streams()
    STDOUT.take()  # of an earlier command in this process

    def report(message: str, code: int) -> int:
        message = one_line(message, _LONGEST)  # it may quote all of a file
        # A message may quote an argument, whole or in parts that no longer look like an address.
        urls = [word for word in arguments if "://" in word]
        if debug:
            with suppress(OSError):  # standard error may be full, or its reader gone
                click.echo(redact_text(traceback.format_exc(), urls), err=True, nl=False)
        return _report(redact_text(message, urls), code, as_json=_logs_json(arguments))

    try:
        command: click.Command = group if name is None else load_command(name)
        code: Any = command.main(args=list(arguments), prog_name=prog_name, standalone_mode=False)
        return _finish(code if isinstance(code, int) else 0, report)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else prog_name
        return report(f"{error.format_message()} (see `{where} --help`)", 2)
    except click.ClickException as error:
        return report(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return report("interrupted", 130)
    except KanoclipError as error:
        return report(str(error), 1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "kanoclip"}:
            return report(_unexpected(error, debug), 1)
        extra = _EXTRA_OF.get(missing, _DEFAULT_EXTRA)
        return report(f"{missing} is not installed: pip install 'kanoclip-edge[{extra}]'", 1)
    except SystemExit as end:
        # What click makes of a reader that has gone (`kanoclip --help | head -1`): it has seen enough.
        if isinstance(end.__context__, BrokenPipeError):
            return _finish(0, report)
        raise
    except OSError as error:
        # What names no file is what click could not print: all others are reported with what they are of.
        failed = _flush() or (error if error.filename is None and error.errno in _FULL else None)
        if failed is None:
            return report(_unexpected(error, debug), 1)
        return 0 if isinstance(failed, BrokenPipeError) else report(_stdout_failed(failed), 1)
    except Exception as error:
        return report(_unexpected(error, debug), 1)


def _open_closed_streams() -> None:
    """Opens what the shell closed (`>&-`) to nowhere: the next file to be opened would take its number and its text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
    # Python has none of what was closed when it started.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _finish(code: int, report: Callable[[str, int], int]) -> int:
    """The exit code, once all that was printed has gone out; 1 where it cannot, unless its reader has gone."""
    device = stat.S_ISCHR(os.fstat(1).st_mode)
    failed = _flush() or STDOUT.take()
    if failed is None or isinstance(failed, BrokenPipeError):
        return code
    if device and failed.errno == errno.EIO:  # a terminal that was closed: nobody is there to read on
        return code
    return report(_stdout_failed(failed), 1)


def _flush() -> OSError | None:
    """Flushes standard output; where that fails, the rest goes nowhere: Python would report it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.stdout.flush()
        return error
    return None


def _stdout_failed(error: OSError) -> str:
    return f"standard output cannot be written ({error.strerror or error}): what was printed is incomplete"


def _unexpected(error: Exception, debug: bool) -> str:
    """The message for a bug in this program."""
    hint = "" if debug else "; run again with --debug for the traceback"
    return f"unexpected {type(error).__name__}: {error}{hint}"


def _logs_json(arguments: Sequence[str]) -> bool:
    """Whether log lines are to be JSON. Neither the arguments nor the file of --config need be valid."""
    given: dict[str, str] = {}
    for flag, value in itertools.pairwise([*arguments, ""]):
        name, equals, own = flag.partition("=")
        if name in ("--log-format", "--config"):
            given.setdefault(name, own if equals else value)
    style = given.get("--log-format") or os.environ.get("KANOCLIP_LOG_FORMAT")
    if style is None and "--config" in given:
        from kanoclip.runtime.detect.settings.toml_file import TomlFile

        with suppress(KanoclipError):
            service = TomlFile(Path(given["--config"])).value.get("service")
            style = service.get("log_format") if isinstance(service, dict) else None
    return style == "json"


def _report(message: str, code: int, *, as_json: bool) -> int:
    """Writes the one line."""
    with suppress(OSError):  # standard error may be full, or its reader gone: the exit code is left
        _write_report(message, code, as_json=as_json)
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def _write_report(message: str, code: int, *, as_json: bool) -> None:
    text = one_line(printable(" ".join(message.split())))
    if as_json:
        from kanoclip.runtime.service.logs import LogFormat, clean, write_line

        write_line(LogFormat.JSON, "kanoclip", logging.ERROR, clean(text), fields={"exit_code": code})
    else:
        click.echo(f"error: {text}", err=True)


if __name__ == "__main__":
    main()
