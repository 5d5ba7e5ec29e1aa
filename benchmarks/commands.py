"""The command of the benchmarks, as pyproject.toml registers it; see `kanoclip.runtime.cli.commands`."""

from __future__ import annotations

import click


def bench() -> click.Command:
    """Measure a bundle's speed and what this machine could do."""
    from kanoclip.benchmarks.bench.cli import command

    return command
