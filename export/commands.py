"""The command of the export, as pyproject.toml registers it; see `kanoclip.runtime.cli.commands`."""

from __future__ import annotations

import click


def export() -> click.Command:
    """Turn a checkpoint into a bundle that the runtime runs."""
    from kanoclip.export.cli.command import command

    return command
