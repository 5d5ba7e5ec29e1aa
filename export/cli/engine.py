"""Which TensorRT engines are built along with the graph, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.bundle.manifest.parts import COMPATIBILITIES
from kanoclip.runtime.cli.options import Command, with_options

if TYPE_CHECKING:
    from kanoclip.export.engine import EngineRequest

_BELONGS = {
    "--compute-capability": ("tensorrt-rtx",),
    "--workspace": ("tensorrt-rtx", "tensorrt"),
    "--compatibility": ("tensorrt",),
    "--strip-weights": ("tensorrt",),
}
"""Of which engines a flag is."""


@dataclass(frozen=True)
class EngineOptions:
    """The engines; what each means is in its option's help."""

    engine: str | None
    compute_capability: str | None
    workspace: int | None
    compatibility: str | None
    strip_weights: bool

    def check(self) -> None:
        """Refuses flags of another engine, or of none.

        Raises:
            click.UsageError: One was given.
        """
        given = {
            "--compute-capability": self.compute_capability,
            "--workspace": self.workspace,
            "--compatibility": self.compatibility,
            "--strip-weights": self.strip_weights or None,
        }
        for flag, engines in _BELONGS.items():
            if given[flag] is not None and self.engine not in engines:
                raise click.UsageError(f"{flag} needs --engine {' or '.join(engines)}.")

    def request(self, precision: str) -> EngineRequest | None:
        """The engines that the flags ask for, as yet for single frames; None for none.

        Args:
            precision: Of the graph.

        Raises:
            ExportError: GPUs that are none, or that the precision does not run on.
        """
        if self.engine is None:
            return None
        from kanoclip.export.engine import EngineRequest, default_targets, parse_compute_capabilities
        from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions
        from kanoclip.runtime.engines.tensorrt.building.provide import timing_file
        from kanoclip.runtime.engines.tensorrt.flavour import RTX

        options = BuildOptions(
            max_batch=1,
            workspace=self.workspace << 20 if self.workspace is not None else None,
            compatibility=self.compatibility or "none",
            stripped=self.strip_weights,
        )
        if self.engine != RTX:
            return EngineRequest(self.engine, replace(options, timing_cache=timing_file()))
        listed = self.compute_capability
        targets = parse_compute_capabilities(listed) if listed else default_targets(precision)
        return EngineRequest(self.engine, replace(options, targets=targets))


_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["tensorrt-rtx", "tensorrt"]),
        help="Also build an engine: for RTX PCs, ahead of time and with no GPU, or for the GPU that is here (Jetson, "
        "data centre).",
    ),
    click.option(
        "--compute-capability",
        metavar="LIST",
        help="GPUs to build the engine for. Default: 8.6,8.9,12.0 (RTX 30, 40, 50), of which fp8 runs on the last two.",
    ),
    click.option(
        "--workspace",
        type=click.IntRange(min=1),
        metavar="MIB",
        help="Most scratch memory of an engine. Default: no limit.",
    ),
    click.option(
        "--compatibility",
        type=click.Choice(COMPATIBILITIES),
        help="GPUs that a `tensorrt` engine runs on: the kind that built it, its generation, or Ampere and later. "
        "Default: none.",
    ),
    click.option(
        "--strip-weights",
        is_flag=True,
        help="Leave the weights out of a `tensorrt` engine: it takes them from the graph when it is loaded.",
    ),
)


def engine_options(command: Command) -> Command:
    """Adds the flags to a command."""
    return with_options(command, _OPTIONS)
