"""Options that several of the subcommands have, what is checked, and how a result is printed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import FleetError

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
trust_option = click.option(
    "--trust",
    type=click.Path(path_type=Path),
    multiple=True,
    envvar="KANOCLIP_TRUST",
    metavar="FILE.pub",
    help="A public key whose bundles are taken; may be given several times. Default: $KANOCLIP_TRUST.",
)
then_option = click.option(
    "--then",
    metavar="COMMAND",
    help="Run this when another bundle became the current one, such as 'systemctl restart kanoclip'. "
    "pull goes back if it fails.",
)


def check_words(then: str | None) -> None:
    """Refuses a command line that is none before anything is done."""
    try:
        empty = then is not None and not shlex.split(then)
    except ValueError as error:
        raise click.BadParameter(f"{then!r} is no command line ({error}).", param_hint="--then") from None
    if empty:
        raise click.BadParameter("it is empty.", param_hint="--then")


def check_beside_bundles(folder: Path) -> None:
    """Refuses a folder to be filled that is a bundle, or lies in one.

    Raises:
        FleetError: It does.
    """
    resolved = folder.resolve()
    inside = next((one for one in (resolved, *resolved.parents) if (one / MANIFEST_NAME).is_file()), None)
    if inside is not None:
        raise FleetError(f"{folder} is or lies in the bundle {inside}, which may be in use: name a folder beside it")


def print_result(result: dict[str, Any], as_json: bool, words: str) -> None:
    """Prints a result: for a program, or for a person in words."""
    click.echo(json.dumps(result, indent=2) if as_json else words)
