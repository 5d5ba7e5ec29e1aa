"""An export from first to last step: model, graph, checks, parity, engines, bundle."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import torch

from kanoclip.export import engine as engines
from kanoclip.export.bf16_reference import emulate_bf16
from kanoclip.export.checks import FLOAT32, QUANTISED, check_graph
from kanoclip.export.descriptor import describe_tower
from kanoclip.export.frame_resize import DRIFT_BOUND, FrameResize
from kanoclip.export.fused_attention import count_fused
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.export.parity import ParityReport, measure_parity
from kanoclip.export.quantisation.quantize import FIRST_OPSET, quantize
from kanoclip.export.samples import Sample, load_samples
from kanoclip.export.staging import check_output, staged
from kanoclip.export.thresholds import first_thresholds
from kanoclip.export.work import count_work
from kanoclip.runtime.bundle.bundle import SAMPLES_FOLDER, Bundle, sha256_of
from kanoclip.runtime.bundle.manifest.parts import (
    IN_GRAPH,
    INTERPOLATION,
    RESIZE_RULE,
    FileInfo,
    ModelInfo,
    Preprocessing,
)
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, MODEL_FILE, SCHEMA, Manifest
from kanoclip.runtime.bundle.manifest.signature import BATCH, MemoryInfo, graph_signature
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.tiles import WHOLE
from kanoclip.runtime.engines import Report, create_backend
from kanoclip.runtime.engines.tensorrt.flavour import RTX
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.sources.files.reading import AS_IT_IS, Reading
from kanoclip.runtime.system.installed import installed_versions, own_commit
from kanoclip.train.backbones import get_backbone
from kanoclip.train.checkpoint import LoadedModel
from kanoclip.train.weights.listing import licence_title

UNQUANTISED_FILE = "unquantised.onnx"
SAMPLES = 4
"""Images of the parity gate that travel with the bundle."""


@dataclass(frozen=True)
class ExportConfig:
    """What to export.

    Attributes:
        output: The bundle's folder, `NAME.kanoclip`.
        classes: Class names to bake, at least one.
        precision: `fp32`, `fp16`, `bf16`, `int8`, `int8-cpu` or `fp8`.
        opset: ONNX opset.
        batch: The graph's batch axis.
        parity_images: Images for the gate.
        parity_limit: Most images to use.
        engine: Which TensorRT engines to build, None for none.
        threads: CPU threads for torch and ONNX Runtime, None for all cores.
        calibration_images: Images that show the range of the activations; for `int8`, `int8-cpu` and `fp8` only.
        calibration_limit: Most of them to use, or of their tiles.
        camera: (height, width) of the camera's frames, which the graph then resizes itself; None leaves it outside.
        memory_rows: Most rows of a reference memory; 0 for a graph that takes none.
        tiles: How frames are cut; not together with `camera`. None for whole ones.
        reading: How images of folders are read.
    """

    output: Path
    classes: tuple[str, ...]
    precision: str
    opset: int
    batch: BatchSpec
    parity_images: Path
    parity_limit: int
    engine: engines.EngineRequest | None
    threads: int | None
    calibration_images: Path | None = None
    calibration_limit: int = 64
    camera: tuple[int, int] | None = None
    memory_rows: int = 1024
    tiles: TileGrid | None = None
    reading: Reading = AS_IT_IS


def export_bundle(loaded: LoadedModel, config: ExportConfig, report: Report) -> Manifest:
    """Exports a model, or fails and writes nothing.

    Args:
        loaded: The checkpoint.
        config: What to export.
        report: Called with the progress.

    Returns:
        The manifest as written.

    Raises:
        ExportError: The graph breaks a rule, drifts past its bound, or cannot be built or written.
        SettingsError: A class name is too long for the prompts, or two are the same to them.
        KanoclipError: Images cannot be read, or ONNX Runtime is not installed.
    """
    check_output(config.output)
    if len(set(config.classes)) != len(config.classes):
        raise ExportError(f"a class is named twice: {', '.join(config.classes)}")
    loaded.model.check_classes(config.classes)
    requests = engines.plan_engines(config.engine, config.precision, config.memory_rows) if config.engine else []
    if config.camera is not None and config.tiles is not None:
        raise ExportError("a graph that resizes the camera's frame sees it whole: leave --camera-size or --tiles out")
    size = config.camera or loaded.model.config.image_size
    tiles = config.tiles or WHOLE
    samples = load_samples(config.parity_images, size, config.parity_limit, tiles=tiles, reading=config.reading)
    quantised = config.precision in QUANTISED
    seen = _calibration(config, size, tiles) if quantised else []
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with staged(config.output) as folder:
        report("baking the text", 0.0)
        graph = DeployGraph(
            loaded.model, config.classes, config.precision, config.camera, memory=config.memory_rows > 0
        )
        report("writing ONNX", 0.0)
        written = UNQUANTISED_FILE if quantised else MODEL_FILE
        write_onnx(graph, size, config.batch, config.opset, folder / written, in_half=not quantised)
        del graph  # a second copy of the weights: the parity run needs the room
        choice = None
        if quantised:
            choice = quantize(
                folder / UNQUANTISED_FILE,
                folder / MODEL_FILE,
                config.precision,
                [sample.frame for sample in seen],
                1 if config.batch.dynamic else config.batch.size,
                report,
            )
            for path in folder.glob(UNQUANTISED_FILE + "*"):
                path.unlink()
        _write_samples(folder / SAMPLES_FOLDER, samples)
        report("checking the graph", 0.0)
        facts = check_graph(folder / MODEL_FILE, config.precision)
        manifest = _manifest(loaded, config, folder)
        resizer = FrameResize(config.camera, loaded.model.config.image_size) if config.camera is not None else None
        parity = _gate(loaded, config, manifest, folder, samples, resizer, report)
        built = [engines.write_engine(folder / MODEL_FILE, folder, request, report) for request in requests]
        # Only of RTX engines can it be counted without a GPU.
        fused = {Path(e.file).name: count_fused((folder / e.file).read_bytes()) for e in built if e.flavour == RTX}
        manifest = replace(
            manifest,
            parity={
                **parity.as_json(),
                "quantisation": choice.as_json() if choice is not None else None,
                "resize_drift": _resize_drift(resizer, samples) if resizer is not None else None,
                "attention_blocks": facts.attention_blocks,
                "fused_attention": fused,
            },
            files={**manifest.files, **_files(folder, engines.ENGINES_FOLDER)},
            engines=tuple(built),
        )
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        Bundle.open(folder)  # what a runtime will do with it first
    return manifest


def _write_samples(folder: Path, samples: list[Sample]) -> None:
    """Puts some of the gate's images into the bundle, spread evenly over them."""
    folder.mkdir()
    count = min(SAMPLES, len(samples))
    for number in range(count):
        frame = samples[number * len(samples) // count].frame
        if not cv2.imwrite(str(folder / f"{number}.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise ExportError(f"cannot write {folder}: is the disk full?")


def _calibration(config: ExportConfig, size: tuple[int, int], tiles: TileGrid) -> list[Sample]:
    if config.calibration_images is None:
        raise ExportError(
            f"{config.precision} needs images for its calibration: name good frames with --calibration-images"
        )
    if config.precision not in FLOAT32 and config.opset < FIRST_OPSET:
        raise ExportError(f"{config.precision} needs opset {FIRST_OPSET} or later, not {config.opset}")
    images = max(config.calibration_limit // tiles.count, 1)
    return load_samples(config.calibration_images, size, images, "--calibration-images", tiles, config.reading)


def _gate(
    loaded: LoadedModel,
    config: ExportConfig,
    manifest: Manifest,
    folder: Path,
    samples: list[Sample],
    resizer: FrameResize | None,
    report: Report,
) -> ParityReport:
    """Runs the parity gate over the staged bundle, through the runtime's own backend."""
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="kanoclip-parity-") as scratch:
        tested, engine = folder, "onnxruntime-cpu"
        if config.precision == "bf16":
            tested, engine = Path(scratch), "onnxruntime-cpu, each bf16 operator computed in float32 and rounded"
            emulate_bf16(folder / MODEL_FILE, tested / MODEL_FILE)
            stand_in = replace(manifest, files=_files(tested))
            (tested / MANIFEST_NAME).write_text(stand_in.to_json(), encoding="utf-8")
        backend = create_backend(Bundle.open(tested), "onnxruntime", "cpu", config.threads)
        try:
            parity = measure_parity(
                loaded.model,
                config.classes,
                backend,
                samples,
                config.precision,
                engine,
                config.batch.size,
                lambda done, total: report("comparing with torch", done / total),
                resizer or torch.from_numpy,
                config.memory_rows,
            )
        finally:
            backend.close()
    if failures := parity.failures():
        raise ExportError(f"the {config.precision} graph drifts from torch: {'; '.join(failures)}: no bundle written")
    return parity


def _resize_drift(resizer: FrameResize, samples: list[Sample]) -> float:
    """How far the graph's resize is from the runtime's on the gate's images, of 255."""
    drift = max(resizer.drift(sample.frame[None]) for sample in samples)
    if not drift <= DRIFT_BOUND:
        raise ExportError(
            f"the graph's resize differs from the runtime's by {drift:.2f} of 255: leave --camera-size out"
        )
    return drift


def _manifest(loaded: LoadedModel, config: ExportConfig, folder: Path) -> Manifest:
    model = loaded.model
    size = model.config.image_size
    axis = BATCH if config.batch.dynamic else config.batch.size
    descriptor = describe_tower(model.tower, config.precision)
    memory = MemoryInfo(config.memory_rows) if config.memory_rows else None
    inputs, outputs = graph_signature(
        size, len(config.classes), axis, config.camera or size, descriptor, memory=memory is not None
    )
    return Manifest(
        schema=SCHEMA,
        name=config.output.stem,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        model=ModelInfo(
            backbone=model.config.backbone,
            image_size=size,
            trained=loaded.trained,
            weights=loaded.weights.title,
            weights_sha256=loaded.weights.sha256,
            checkpoint_sha256=loaded.checkpoint_sha256,
            prompts=model.config.prompts,
            vv=model.config.vv,
            bicmci=len(model.head.stages) > 0,
            conv_adapter=model.head.adapter is not None,
            global_token=model.config.global_token,
            licence=licence_title(get_backbone(model.config.backbone), loaded.weights),
        ),
        classes=config.classes,
        precision=config.precision,
        opset=config.opset,
        inputs=inputs,
        outputs=outputs,
        descriptor=descriptor,
        memory=memory,
        max_batch=config.batch.size,
        preprocessing=Preprocessing(RESIZE_RULE if config.camera is None else IN_GRAPH, INTERPOLATION),
        thresholds=first_thresholds(loaded.checkpoint_sha256, config.classes, config.tiles),
        provenance=_provenance(),
        parity=None,
        files=_files(folder),
        engines=(),
        work=count_work(folder / MODEL_FILE, config.batch.size),
        tiles=config.tiles,
    )


def _files(folder: Path, below: str = ".") -> dict[str, FileInfo]:
    """Digest and size of every file of a staged bundle, or of those in one of its folders."""
    paths = sorted(path for path in (folder / below).rglob("*") if path.is_file() and path.name != MANIFEST_NAME)
    return {path.relative_to(folder).as_posix(): FileInfo(sha256_of(path), path.stat().st_size) for path in paths}


def _provenance() -> dict[str, str]:
    names = ("kanoclip-edge", "torch", "open_clip_torch", "onnx", "onnxscript", "onnxruntime", "tensorrt-rtx")
    # Without the folders of this machine, which are nobody's business.
    command = shlex.join(Path(part).name if part.startswith("/") else part for part in sys.argv)
    return {**installed_versions(names), "python": sys.version.split()[0], "command": command, "commit": own_commit()}
