"""In which numbers the graph computes, and the images that int8 and fp8 are calibrated on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from kanoclip.runtime.cli.options import Command, with_options


@dataclass(frozen=True)
class PrecisionOptions:
    """The graph's numbers; what each means is in its option's help."""

    precision: str
    calibration_images: Path | None
    opset: int | None

    @property
    def for_tensor_cores(self) -> bool:
        """Whether the products are of whole numbers or float8 in an fp16 graph."""
        return self.precision in ("int8", "fp8")

    @property
    def written_opset(self) -> int:
        """The one that is given, or the earliest that has what the precision needs."""
        return self.opset or (19 if self.for_tensor_cores else 18)

    def check(self) -> None:
        """Refuses a calibration without images, images without one, and an opset without its operators.

        Raises:
            click.UsageError: So it is.
        """
        quantised = self.for_tensor_cores or self.precision == "int8-cpu"
        if quantised != (self.calibration_images is not None):
            raise click.UsageError(
                f"--{self.precision} needs --calibration-images: name a folder of good frames."
                if quantised
                else "--calibration-images is for --int8, --int8-cpu and --fp8."
            )
        if self.for_tensor_cores and self.opset == 18:
            raise click.UsageError(f"--{self.precision} needs --opset 19 or later.")


_OPTIONS = (
    click.option("--fp32", "precision", flag_value="fp32", default=True, help="32-bit graph. The default."),
    click.option("--fp16", "precision", flag_value="fp16", help="Mixed fp16 graph, for tensor cores."),
    click.option("--bf16", "precision", flag_value="bf16", help="Mixed bf16 graph, for Ampere and later."),
    click.option("--int8", "precision", flag_value="int8", help="int8 products in an fp16 graph, for tensor cores."),
    click.option(
        "--int8-cpu",
        "precision",
        flag_value="int8-cpu",
        help="int8 products in a float32 graph, for CPUs (VNNI, AMX).",
    ),
    click.option("--fp8", "precision", flag_value="fp8", help="float8 ones instead, for Ada and Blackwell."),
    click.option(
        "--calibration-images",
        type=click.Path(exists=True, path_type=Path),
        metavar="PATH",
        help="For --int8, --int8-cpu and --fp8: frames such as the camera will give, good ones; up to 64 are used.",
    ),
    click.option("--opset", type=click.IntRange(18, 21), help="ONNX opset. Default: 18; 19 for int8 and fp8."),
)


def precision_options(command: Command) -> Command:
    """Adds the flags to a command."""
    return with_options(command, _OPTIONS)
