"""The options of `kanoclip-train`, and the configuration that they make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.runtime.cli.options import Command, with_options
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.errors import KanoclipError

if TYPE_CHECKING:
    from kanoclip.train.data.types import Split
    from kanoclip.train.model.towers.blocks import GlobalToken
    from kanoclip.train.training.config import Amp, KdForm, NormalTexts, Optimizer, TrainConfig


@dataclass(frozen=True)
class TrainOptions:
    """The command line; what each means is in its option's help."""

    dataset: str
    root: Path
    categories: tuple[str, ...]
    split: Split
    class_name: str | None
    backbone: str
    weights: str
    image_size: int | None
    output: Path | None
    overwrite: bool
    resume: bool
    epochs: int
    batch_size: int
    optimizer: Optimizer
    lr_prompts: float
    lr_modules: float
    weight_decay: float
    warmup_steps: int
    clip_grad: float
    kd_weight: float
    global_weight: float
    local_weight: float
    kd_form: KdForm
    kd_margin: float | None
    no_observed: bool
    normal_texts: NormalTexts
    ema: float
    amp: Amp
    augment: bool
    prompt_length: int
    global_token: GlobalToken
    no_knpl: bool
    no_vv: bool
    no_bicmci: bool
    no_conv_adapter: bool
    knowledge: tuple[Path, ...]
    cache_folder: Path | None
    no_cache: bool
    cache_size: float
    device: str
    threads: int | None
    workers: int
    save_minutes: float
    tensorboard: Path | None
    seed: int
    quiet: bool


_OPTIONS = (
    click.option("--dataset", required=True, metavar="NAME", help="Layout of the dataset: see `kanoclip-data list`."),
    click.option("--root", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The dataset's folder."),
    click.option("--category", "categories", multiple=True, metavar="NAME", help="Train on these only; repeatable."),
    click.option(
        "--split",
        type=click.Choice(["test", "train", "all"]),
        default="test",
        show_default=True,
        help="Which images: the test split holds the defects (as APRIL-GAN and AnomalyCLIP train).",
    ),
    click.option(
        "--class-name", metavar="WORDS", help="Words for [class] in every prompt. Default: each category's own."
    ),
    click.option("--backbone", metavar="NAME", default="vit-l-14-336", show_default=True, help="The frozen CLIP."),
    click.option(
        "--weights",
        default="auto",
        show_default=True,
        metavar="auto|none|FILE",
        help="The backbone's weights: the published ones, seeded random ones, or a file.",
    ),
    click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own."),
    click.option(
        "--output",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Checkpoint to write (.safetensors). Default: ./BACKBONE-DATASET.safetensors.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace an existing checkpoint, or the state of a stopped run."),
    click.option("--resume", is_flag=True, help="Go on with the run that was stopped."),
    click.option("--epochs", type=click.IntRange(min=1), default=15, show_default=True),
    click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Over all processes."),
    click.option("--optimizer", type=click.Choice(["adam", "adamw"]), default="adam", show_default=True),
    click.option("--lr-prompts", type=float, default=1e-3, show_default=True, help="Peak rate of the prompts."),
    click.option(
        "--lr-modules", type=float, default=1e-4, show_default=True, help="Peak rate of Bi-CMCI, Conv-Adapter."
    ),
    click.option("--weight-decay", type=float, default=0.0, show_default=True),
    click.option("--warmup-steps", type=click.IntRange(min=0), default=100, show_default=True),
    click.option("--clip-grad", type=float, default=1.0, show_default=True, help="Largest gradient norm; 0: no limit."),
    click.option("--kd-weight", type=float, default=1.0, show_default=True, help="alpha of eq. 13."),
    click.option("--global-weight", type=float, default=1.0, show_default=True, help="beta of eq. 13."),
    click.option("--local-weight", type=float, default=1.0, show_default=True, help="gamma of eq. 13."),
    click.option(
        "--kd-form",
        type=click.Choice(["printed", "anchored"]),
        default="anchored",
        show_default=True,
        help="KD loss: eq. 2 as printed, or without what normal and abnormal descriptions share.",
    ),
    click.option(
        "--kd-margin", type=float, help="Margin of the KD loss's hinge, 0 to 2. Default: 0 printed, 1.75 anchored."
    ),
    click.option(
        "--no-observed",
        is_flag=True,
        help="Leave out a vision model's descriptions of single images.",
    ),
    click.option(
        "--normal-descriptions",
        "normal_texts",
        type=click.Choice(["derived", "written", "both"]),
        default="derived",
        show_default=True,
        help="Anchors of the KD loss: derived from the abnormal descriptions, the base's own `normal` ones, or both.",
    ),
    click.option("--ema", type=float, default=0.0, show_default=True, help="Decay of averaged weights; 0: none."),
    click.option("--amp", type=click.Choice(["no", "bf16", "fp16"]), default="no", show_default=True, help="Autocast."),
    click.option("--augment", is_flag=True, help="Random flips, turns, brightness, contrast. Turns the cache off."),
    click.option("--prompt-length", type=click.IntRange(1, 64), default=12, show_default=True, help="K of eq. 1."),
    click.option(
        "--global-token",
        type=click.Choice(["original", "local"]),
        default="original",
        show_default=True,
        help="Which path's class token is the global feature.",
    ),
    click.option("--no-knpl", is_flag=True, help="`a photo of a normal CLASS` in place of learned prompts (table 3)."),
    click.option("--no-vv", is_flag=True, help="Leave the V-V path out."),
    click.option("--no-bicmci", is_flag=True, help="Leave Bi-CMCI out."),
    click.option("--no-conv-adapter", is_flag=True, help="Leave the Conv-Adapter out."),
    click.option(
        "--knowledge",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="Knowledge base for the KD loss; repeatable. Default: the one that ships.",
    ),
    click.option(
        "--cache",
        "cache_folder",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Where the tower's features are saved. Default: ~/.cache/kanoclip/features.",
    ),
    click.option("--no-cache", is_flag=True, help="Run the tower in every epoch."),
    click.option(
        "--cache-size", type=Decimal(min=0), default=20.0, show_default=True, metavar="GIB", help="Its limit."
    ),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: torch's choice."),
    click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that read."),
    click.option("--save-minutes", type=Decimal(min=0), default=10.0, show_default=True, help="Between saved states."),
    click.option(
        "--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Write TensorBoard's files there."
    ),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
    click.option("--quiet", is_flag=True, help="No progress; warnings and errors remain."),
)


def train_options(function: Command) -> Command:
    """Adds the options to a command, in the order of the help."""
    return with_options(function, _OPTIONS)


def run_config(options: TrainOptions) -> TrainConfig:
    """The run's configuration, refused as a usage error where it makes no sense."""
    from kanoclip.train.backbones import get_backbone
    from kanoclip.train.model.kanoclip import ModelConfig
    from kanoclip.train.training.config import TrainConfig

    try:
        size = (options.image_size, options.image_size) if options.image_size else None
        backbone = get_backbone(options.backbone)
        model = ModelConfig(
            backbone=options.backbone,
            image_size=size or backbone.native_size,
            vv=not options.no_vv,
            bicmci=not options.no_bicmci,
            conv_adapter=not options.no_conv_adapter,
            prompts="template" if options.no_knpl else "learned",
            prompt_length=options.prompt_length,
            global_token=options.global_token,
            self_similarity=backbone.self_similarity,
            global_temperature=backbone.global_temperature,
        )
        return TrainConfig(
            model=model,
            epochs=options.epochs,
            batch_size=options.batch_size,
            optimizer=options.optimizer,
            lr_prompts=options.lr_prompts,
            lr_modules=options.lr_modules,
            weight_decay=options.weight_decay,
            warmup_steps=options.warmup_steps,
            clip_grad=options.clip_grad,
            kd_weight=options.kd_weight,
            global_weight=options.global_weight,
            local_weight=options.local_weight,
            kd_form=options.kd_form,
            kd_margin=options.kd_margin,
            observed=not options.no_observed,
            normal_texts=options.normal_texts,
            ema=options.ema,
            amp=options.amp,
            augment=options.augment,
            class_name=options.class_name,
            seed=options.seed,
        )
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
