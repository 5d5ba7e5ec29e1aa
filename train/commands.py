"""The commands of training, as pyproject.toml registers them; see `kanoclip.runtime.cli.commands`."""

from __future__ import annotations

import click


def train() -> click.Command:
    """Learn prompts and head on a dataset with defects."""
    from kanoclip.train.training.cli.command import command

    return command


def evaluate() -> click.Command:
    """Measure a bundle or a checkpoint on a dataset."""
    from kanoclip.train.evaluation.cli.command import command

    return command


def knowledge() -> click.Command:
    """Show, check or build the knowledge base."""
    from kanoclip.train.knowledge.cli import command

    return command


def data() -> click.Command:
    """Check a dataset's folder."""
    from kanoclip.train.data.cli import command

    return command
