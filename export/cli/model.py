"""What is exported: a checkpoint, or a backbone with a head of the shape that the flags give; and its classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.cli.options import Command, with_options

if TYPE_CHECKING:
    from kanoclip.train.model.kanoclip import Prompts

DEFAULT_BACKBONE = "nano"


@dataclass(frozen=True)
class ModelOptions:
    """The model; what each means is in its option's help."""

    backbone: str | None
    checkpoint: Path | None
    from_hub: str | None
    weights: str
    prompts: Prompts | None
    image_size: int | None
    global_token: str | None
    no_vv: bool
    no_bicmci: bool
    no_conv_adapter: bool
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The backbone's, as far as the flags tell it."""
        return self.backbone or DEFAULT_BACKBONE

    @property
    def shaped(self) -> list[str]:
        """The given flags whose matter a checkpoint decides."""
        values = {
            "--prompts": self.prompts,
            "--image-size": self.image_size,
            "--global-token": self.global_token,
            "--no-vv": self.no_vv or None,
            "--no-bicmci": self.no_bicmci or None,
            "--no-conv-adapter": self.no_conv_adapter or None,
        }
        return [flag for flag, value in values.items() if value is not None]

    @property
    def shipped(self) -> bool:
        """Whether it is the checkpoint that travels with the package."""
        default = self.name == DEFAULT_BACKBONE and self.weights == "auto"
        return default and self.checkpoint is None and not self.shaped

    def check(self) -> None:
        """Refuses what a checkpoint decides beside one, two checkpoints, and names that are none.

        Raises:
            click.UsageError: So it is.
        """
        if (self.checkpoint is not None or self.from_hub is not None) and self.shaped:
            raise click.UsageError(f"{self.shaped[0]} is decided by the checkpoint: leave it out.")
        if self.checkpoint is not None and self.from_hub is not None:
            raise click.UsageError("--checkpoint and --from-hub exclude each other.")
        if any(not name.strip() for name in self.classes):
            raise click.UsageError("--class is empty: name what is in front of the camera, such as --class bottle.")
        if (odd := next((name for name in self.classes if not is_one_line(name)), None)) is not None:
            raise click.UsageError(
                f"--class {odd!r} has a line end or a control character: write it as one line of text."
            )

    def fetched(self) -> ModelOptions:
        """The same with the hub's checkpoint as a file here, if one is named.

        Raises:
            KanoclipError: It cannot be had.
        """
        if self.from_hub is None:
            return self
        from kanoclip.train.weights.hub import fetch_checkpoint

        return replace(self, checkpoint=fetch_checkpoint(self.from_hub))


_OPTIONS = (
    click.option("--backbone", metavar="NAME", help=f"CLIP backbone. Default: {DEFAULT_BACKBONE}."),
    click.option(
        "--checkpoint",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="What kanoclip-train learned (.safetensors). Default: the packaged one for nano, else an untrained head.",
    ),
    click.option(
        "--from-hub",
        metavar="OWNER/NAME/FILE@REVISION",
        help="A checkpoint on Hugging Face's hub. FILE is kanoclip.safetensors if left out, and has its .json beside "
        "it; REVISION may be left out too.",
    ),
    click.option(
        "--weights",
        default="auto",
        show_default=True,
        metavar="auto|none|FILE",
        help="The backbone's weights: the published ones, seeded random ones, or a file.",
    ),
    click.option(
        "--prompts",
        type=click.Choice(["learned", "template", "handcrafted"]),
        help="Learnable prompts, `a photo of a normal CLASS`, or WinCLIP's ensemble. The last two need no training. "
        "Default: learned.",
    ),
    click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own."),
    click.option(
        "--global-token",
        type=click.Choice(["original", "local"]),
        help="Which path's class token is the global feature. Default: original.",
    ),
    click.option("--no-vv", is_flag=True, help="Leave the V-V path out (table 3 of the paper)."),
    click.option("--no-bicmci", is_flag=True, help="Leave Bi-CMCI out."),
    click.option("--no-conv-adapter", is_flag=True, help="Leave the Conv-Adapter out."),
    click.option(
        "--class", "classes", multiple=True, metavar="NAME", help="Class to bake; repeatable. Default: object."
    ),
)


def model_options(command: Command) -> Command:
    """Adds the flags to a command."""
    return with_options(command, _OPTIONS)
