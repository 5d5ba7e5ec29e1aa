"""`kanoclip --version`: the version, and the engines that are installed."""

from __future__ import annotations

from collections.abc import Sequence

import click

from kanoclip.runtime.system.installed import installed_versions

ENGINES = (
    *("onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "tritonclient"),
)
"""Distributions that run a graph, or ask a server that does."""


def version_lines(distribution: str) -> Sequence[str]:
    """The version, and a line of the engines found; nothing is imported for it.

    Args:
        distribution: This project's.
    """
    found = installed_versions([distribution, *ENGINES])
    own = found.pop(distribution, "of a source tree that is not installed")
    engines = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"kanoclip, version {own}", f"engines: {engines or 'none; pip install kanoclip-edge[cpu]'}"


def version_option(distribution: str) -> click.Option:
    """`--version`, which prints these lines and ends.

    Args:
        distribution: This project's.
    """

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo("\n".join(version_lines(distribution)))
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version and the engines that are installed.",
    )
