"""Loads the model and exports it as the flags say; imports torch, so that a command imports this late."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from kanoclip.export.cli.frames import AUTO
from kanoclip.export.cli.model import ModelOptions
from kanoclip.export.cli.preparing import Prepared
from kanoclip.export.onnx_writer import BatchSpec
from kanoclip.export.pipeline import ExportConfig, export_bundle
from kanoclip.export.samples import choose_grid
from kanoclip.runtime.bundle.manifest.schema import Manifest
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.engines import Report
from kanoclip.runtime.errors import CheckpointError, KanoclipError
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import LoadedModel, build_model, load_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.weights import CHECKPOINT, packaged
from kanoclip.train.weights.listing import check_licence


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        bundle: Its folder.
        manifest: Its manifest.
        warning: About the weights' licence; None where nothing is to be said.
    """

    bundle: Path
    manifest: Manifest
    warning: str | None


def check_backbone(prepared: Prepared) -> None:
    """Refuses a backbone that is none, or whose published weights may not be exported, before they are loaded.

    Raises:
        click.UsageError: So it is.
    """
    model = prepared.model
    try:
        entry = get_backbone(model.name)
        if model.checkpoint is None and model.weights != "none":
            check_licence(entry, None, prepared.options.result.accept_licence)
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error


def export(prepared: Prepared, report: Report) -> Exported:
    """Exports, or fails and writes nothing.

    Args:
        prepared: What to export.
        report: Called with the progress.

    Raises:
        KanoclipError: The model cannot be loaded, its licence was not accepted, or the export failed.
    """
    options = prepared.options
    report("loading the model", 0.0)
    loaded = _load(prepared.model)
    name = loaded.model.config.backbone
    warning = check_licence(get_backbone(name), loaded.weights, options.result.accept_licence)
    config = _config(prepared, loaded, options.result.bundle(name))
    return Exported(config.output, export_bundle(loaded, config, report), warning)


def _load(model: ModelOptions) -> LoadedModel:
    checkpoint = packaged(CHECKPOINT) if model.shipped else model.checkpoint
    if checkpoint is None:
        return build_model(_shape(model), model.weights)
    loaded = load_checkpoint(checkpoint, model.weights)
    if model.backbone is not None and loaded.model.config.backbone != model.backbone:
        raise CheckpointError(
            f"{checkpoint} belongs to the backbone {loaded.model.config.backbone}, not {model.backbone}: "
            "leave --backbone out"
        )
    return loaded


def _shape(model: ModelOptions) -> ModelConfig:
    """Of a model without a checkpoint."""
    entry = get_backbone(model.name)
    return ModelConfig(
        backbone=entry.name,
        image_size=(model.image_size, model.image_size) if model.image_size else entry.native_size,
        vv=not model.no_vv,
        bicmci=not model.no_bicmci,
        conv_adapter=not model.no_conv_adapter,
        prompts=model.prompts or "learned",
        global_token="local" if model.global_token == "local" else "original",
        self_similarity=entry.self_similarity,
        global_temperature=entry.global_temperature,
    )


def _config(prepared: Prepared, loaded: LoadedModel, output: Path) -> ExportConfig:
    options = prepared.options
    grid = _auto_grid(prepared, loaded) if options.frames.tiles == AUTO else prepared.grid
    together = options.frames.at_once(grid)
    return ExportConfig(
        output=output,
        classes=prepared.model.classes or ("object",),
        precision=options.precision.precision,
        opset=options.precision.written_opset,
        batch=BatchSpec(together, dynamic=options.frames.dynamic_batch is not None),
        parity_images=options.parity.images,
        parity_limit=options.parity.parity_limit,
        engine=None if prepared.engine is None else prepared.engine.for_batch(together),
        threads=options.parity.threads,
        calibration_images=options.precision.calibration_images,
        camera=options.frames.camera_size,
        memory_rows=options.frames.memory_rows,
        tiles=grid,
        reading=options.parity.reading,
    )


def _auto_grid(prepared: Prepared, loaded: LoadedModel) -> TileGrid | None:
    """The tiles that suit the shape of the gate's images."""
    parity = prepared.options.parity
    size = loaded.model.config.image_size
    shared = prepared.options.frames.shared
    return choose_grid(parity.images, parity.parity_limit, size, shared, "--parity-images", parity.reading)
