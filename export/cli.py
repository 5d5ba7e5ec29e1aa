"""`kanoclip-export`: a checkpoint becomes a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kanoclip.export.printed import print_summary
from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.bundle.manifest.parts import COMPATIBILITIES
from kanoclip.runtime.cli.options import json_option, quiet_option, reading_options
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.sources.files.reading import Reading

if TYPE_CHECKING:
    from kanoclip.export.engine import EngineRequest
    from kanoclip.train.checkpoint import LoadedModel
    from kanoclip.train.model.kanoclip import Prompts

DEFAULT_BACKBONE = "nano"
AUTO = "auto"
WIDE = 1000
"""Columns of what is printed as wide as it is, in a narrow terminal or a pipe too."""

_EPILOG = """
Examples:

\b
  kanoclip-export --fp16
  kanoclip-export --fp16 --class bottle --class cable --output line3.kanoclip
  kanoclip-export --tiles auto --parity-images good_frames/ --output line3.kanoclip
  kanoclip-export --int8-cpu --calibration-images good_frames/ --output line3-int8.kanoclip
  kanoclip-export --backbone vit-l-14-336 --checkpoint run/best.safetensors --fp16 --engine tensorrt-rtx
  kanoclip-export --list-backbones
  kanoclip-export --from-hub plant/line3-checkpoint@v2 --fp16
  kanoclip-export --backbone vit-l-14-336 --prompts handcrafted --weights CLIP.safetensors --fp16

The parity gate compares the graph with torch on images; an export that drifts writes nothing.
Exit codes: 0 written; 1 a failure; 2 wrong usage.
"""


def _camera_size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """(height, width), from WIDTHxHEIGHT as cameras have it."""
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 16384 and 0 < int(height) <= 16384):
        raise click.BadParameter(f"{value!r} is not WIDTHxHEIGHT in pixels, such as 1920x1080.")
    return int(height), int(width)


def _list_backbones(as_json: bool) -> None:
    """Prints the table, for a person or a program."""
    from kanoclip.export.printed import print_backbones
    from kanoclip.train.weights.listing import list_backbones, unsuited

    found = list_backbones()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print_backbones(Console(width=WIDE), found, unsuited())


@click.command(epilog=_EPILOG)
@click.option("--backbone", metavar="NAME", help=f"CLIP backbone. Default: {DEFAULT_BACKBONE}.")
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What kanoclip-train learned (.safetensors). Default: the packaged one for nano, else an untrained head.",
)
@click.option(
    "--from-hub",
    metavar="OWNER/NAME/FILE@REVISION",
    help="A checkpoint on Hugging Face's hub. FILE is kanoclip.safetensors if left out, and has its .json beside it; "
    "REVISION may be left out too.",
)
@click.option(
    "--weights",
    default="auto",
    show_default=True,
    metavar="auto|none|FILE",
    help="The backbone's weights: the published ones, seeded random ones, or a file.",
)
@click.option(
    "--prompts",
    type=click.Choice(["learned", "template", "handcrafted"]),
    help="Learnable prompts, `a photo of a normal CLASS`, or WinCLIP's ensemble. The last two need no training. "
    "Default: learned.",
)
@click.option("--image-size", type=click.IntRange(min=1), metavar="PIXELS", help="Default: the backbone's own.")
@click.option(
    "--global-token",
    type=click.Choice(["original", "local"]),
    help="Which path's class token is the global feature. Default: original.",
)
@click.option("--no-vv", is_flag=True, help="Leave the V-V path out (table 3 of the paper).")
@click.option("--no-bicmci", is_flag=True, help="Leave Bi-CMCI out.")
@click.option("--no-conv-adapter", is_flag=True, help="Leave the Conv-Adapter out.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Class to bake; repeatable. Default: object.")
@click.option("--fp32", "precision", flag_value="fp32", default=True, help="32-bit graph. The default.")
@click.option("--fp16", "precision", flag_value="fp16", help="Mixed fp16 graph, for tensor cores.")
@click.option("--bf16", "precision", flag_value="bf16", help="Mixed bf16 graph, for Ampere and later.")
@click.option("--int8", "precision", flag_value="int8", help="int8 products in an fp16 graph, for tensor cores.")
@click.option(
    "--int8-cpu",
    "precision",
    flag_value="int8-cpu",
    help="int8 products in a float32 graph, for CPUs (VNNI, AMX).",
)
@click.option("--fp8", "precision", flag_value="fp8", help="float8 ones instead, for Ada and Blackwell.")
@click.option(
    "--calibration-images",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="For --int8, --int8-cpu and --fp8: frames such as the camera will give, good ones; up to 64 are used.",
)
@click.option("--opset", type=click.IntRange(18, 21), help="ONNX opset. Default: 18; 19 for int8 and fp8.")
@click.option(
    "--batch", type=click.IntRange(min=1), metavar="N", help="Static batch size. Default: 1, or one frame's tiles."
)
@click.option("--dynamic-batch", type=click.IntRange(min=2), metavar="MAX", help="Any batch from 1 to MAX.")
@click.option(
    "--camera-size",
    metavar="WIDTHxHEIGHT",
    callback=_camera_size,
    help="Resize in the graph, for a GPU: it takes the camera's whole frame, such as 1920x1080.",
)
@click.option(
    "--memory-rows",
    type=click.IntRange(min=0, max=16384),
    default=1024,
    show_default=True,
    metavar="N",
    help="Most rows of a reference memory, which kanoclip-learn fills; 0 for a graph that takes none.",
)
@click.option(
    "--tiles",
    metavar="ROWSxCOLUMNS|auto",
    help="Cut each frame into tiles, each of which the graph sees in full: for long parts and small defects. auto: by "
    "the shape of --parity-images. An inference takes as many times longer. Default: the whole frame.",
)
@click.option(
    "--overlap",
    type=Decimal(0, 0.5),
    metavar="SHARE",
    help="Of a tile's side that it shares with its neighbour, up to 0.5. Default: 0.15.",
)
@click.option(
    "--engine",
    type=click.Choice(["tensorrt-rtx", "tensorrt"]),
    help="Also build an engine: for RTX PCs, ahead of time and with no GPU, or for the GPU that is here (Jetson, data "
    "centre).",
)
@click.option(
    "--compute-capability",
    metavar="LIST",
    help="GPUs to build the engine for. Default: 8.6,8.9,12.0 (RTX 30, 40, 50), of which fp8 runs on the last two.",
)
@click.option(
    "--workspace",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Most scratch memory of an engine. Default: no limit.",
)
@click.option(
    "--compatibility",
    type=click.Choice(COMPATIBILITIES),
    help="GPUs that a `tensorrt` engine runs on: the kind that built it, its generation, or Ampere and later. "
    "Default: none.",
)
@click.option(
    "--strip-weights",
    is_flag=True,
    help="Leave the weights out of a `tensorrt` engine: it takes them from the graph when it is loaded.",
)
@click.option(
    "--parity-images",
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="Images for the parity gate; four travel with the bundle, small. Default: the example photographs.",
)
@click.option(
    "--parity-limit",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Most images to use. In labelled folders (good/ beside others), more make the AUROC before and after finer.",
)
@reading_options
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads. Default: all cores.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="PATH", help="Bundle to write. Default: ./BACKBONE.kanoclip."
)
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also put the model into a model repository of NVIDIA Triton Inference Server.",
)
@click.option(
    "--accept-licence",
    metavar="NAME",
    help="Export weights that are for research only, whose licence this is; the manifest says so.",
)
@click.option(
    "--list-backbones",
    is_flag=True,
    help="Show the backbones with their size, work and licence, and leave.",
)
@json_option
@quiet_option
def command(
    backbone: str | None,
    checkpoint: Path | None,
    from_hub: str | None,
    weights: str,
    prompts: Prompts | None,
    image_size: int | None,
    global_token: str | None,
    no_vv: bool,
    no_bicmci: bool,
    no_conv_adapter: bool,
    classes: tuple[str, ...],
    precision: str,
    calibration_images: Path | None,
    opset: int | None,
    batch: int | None,
    dynamic_batch: int | None,
    camera_size: tuple[int, int] | None,
    memory_rows: int,
    tiles: str | None,
    overlap: float | None,
    engine: str | None,
    compute_capability: str | None,
    workspace: int | None,
    compatibility: str | None,
    strip_weights: bool,
    parity_images: Path | None,
    parity_limit: int,
    reading: Reading,
    threads: int | None,
    output: Path | None,
    triton: Path | None,
    accept_licence: str | None,
    list_backbones: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export KAnoCLIP to a bundle: ONNX with the classes' text baked in, a manifest, and engines if asked for."""
    if list_backbones:
        _list_backbones(as_json)
        return
    if batch is not None and dynamic_batch is not None:
        raise click.UsageError("--batch and --dynamic-batch exclude each other.")
    for_tensor_cores = precision in ("int8", "fp8")
    quantised = for_tensor_cores or precision == "int8-cpu"
    if quantised != (calibration_images is not None):
        raise click.UsageError(
            f"--{precision} needs --calibration-images: name a folder of good frames."
            if quantised
            else "--calibration-images is for --int8, --int8-cpu and --fp8."
        )
    if for_tensor_cores and opset == 18:
        raise click.UsageError(f"--{precision} needs --opset 19 or later.")
    _check_engine_flags(engine, compute_capability, workspace, compatibility, strip_weights)
    _check_tile_flags(tiles, overlap, camera_size, parity_images)
    if precision == "int8-cpu" and engine is not None:
        raise click.UsageError("--int8-cpu is for CPUs: take --int8 for an --engine.")
    given_shape = {
        "--prompts": prompts,
        "--image-size": image_size,
        "--global-token": global_token,
        "--no-vv": no_vv or None,
        "--no-bicmci": no_bicmci or None,
        "--no-conv-adapter": no_conv_adapter or None,
    }
    given = [flag for flag, value in given_shape.items() if value is not None]
    if (checkpoint is not None or from_hub is not None) and given:
        raise click.UsageError(f"{given[0]} is decided by the checkpoint: leave it out.")
    if checkpoint is not None and from_hub is not None:
        raise click.UsageError("--checkpoint and --from-hub exclude each other.")
    if any(not name.strip() for name in classes):
        raise click.UsageError("--class is empty: name what is in front of the camera, such as --class bottle.")
    if (odd := next((name for name in classes if not is_one_line(name)), None)) is not None:
        raise click.UsageError(f"--class {odd!r} has a line end or a control character: write it as one line of text.")

    # What can be refused without the model is, before torch and open_clip are imported, which takes seconds.
    from kanoclip.export.staging import check_output
    from kanoclip.export.triton import check_repository, write_repository
    from kanoclip.runtime.bundle.bundle import SUFFIX, Bundle
    from kanoclip.runtime.detect.tiles import OVERLAP, parse_grid
    from kanoclip.runtime.errors import CheckpointError, KanoclipError
    from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
    from kanoclip.train.weights import CHECKPOINT, packaged

    if from_hub is not None:
        from kanoclip.train.weights.hub import fetch_checkpoint

        checkpoint = fetch_checkpoint(from_hub)
    name = backbone or DEFAULT_BACKBONE
    shipped = checkpoint is None and not given and name == DEFAULT_BACKBONE and weights == "auto"
    shared = OVERLAP if overlap is None else overlap
    try:
        grid = None if tiles in (None, AUTO) else parse_grid(tiles, shared)
        request = None
        if engine is not None:
            request = _engine_request(engine, compute_capability, workspace, compatibility, strip_weights, precision)
        if output is not None or checkpoint is None:
            check_output(output or Path(name + SUFFIX))
        if triton is not None:
            check_repository(triton, (output or Path(name + SUFFIX)).stem)
        inputs = {
            "the checkpoint": checkpoint,
            "the calibration images": calibration_images,
            "the parity images": parity_images,
        }
        refuse_overwriting(
            [Written("--output", output or Path(name + SUFFIX), replaced=True)],
            [Read(what, path) for what, path in inputs.items() if path is not None],
        )

        from kanoclip.export.onnx_writer import BatchSpec
        from kanoclip.export.pipeline import ExportConfig, export_bundle
        from kanoclip.export.samples import choose_grid
        from kanoclip.train.backbones import get_backbone
        from kanoclip.train.checkpoint import build_model, load_checkpoint
        from kanoclip.train.model.kanoclip import ModelConfig
        from kanoclip.train.weights.listing import check_licence

        entry = get_backbone(name)
        if checkpoint is None and weights != "none":
            check_licence(entry, None, accept_licence)
    except KanoclipError as error:
        raise click.UsageError(str(error)) from error
    if shipped:
        checkpoint, output = packaged(CHECKPOINT), output or Path(name + SUFFIX)
    console = Console(stderr=True, quiet=quiet)
    with builds_shown(console) as progress:
        progress("loading the model", 0.0)
        loaded: LoadedModel
        if checkpoint is not None:
            loaded = load_checkpoint(checkpoint, weights)
            if backbone is not None and loaded.model.config.backbone != backbone:
                raise CheckpointError(
                    f"{checkpoint} belongs to the backbone {loaded.model.config.backbone}, not {backbone}: "
                    "leave --backbone out"
                )
        else:
            loaded = build_model(
                ModelConfig(
                    backbone=entry.name,
                    image_size=(image_size, image_size) if image_size else entry.native_size,
                    vv=not no_vv,
                    bicmci=not no_bicmci,
                    conv_adapter=not no_conv_adapter,
                    prompts=prompts or "learned",
                    global_token="local" if global_token == "local" else "original",
                    self_similarity=entry.self_similarity,
                    global_temperature=entry.global_temperature,
                ),
                weights,
            )
        licence = check_licence(get_backbone(loaded.model.config.backbone), loaded.weights, accept_licence)
        if tiles == AUTO and parity_images is not None:
            grid = choose_grid(
                parity_images,
                parity_limit,
                loaded.model.config.image_size,
                shared,
                "--parity-images",
                reading,
            )
        # Together in one run, a frame's tiles take no longer than one by one (docs/measurements.md).
        together = dynamic_batch or batch or (1 if grid is None else grid.count)
        config = ExportConfig(
            output=output or Path(loaded.model.config.backbone + SUFFIX),
            classes=classes or ("object",),
            precision=precision,
            opset=opset or (19 if for_tensor_cores else 18),
            batch=BatchSpec(together, dynamic=dynamic_batch is not None),
            parity_images=parity_images or _example_images(),
            parity_limit=parity_limit,
            engine=None if request is None else request.for_batch(together),
            threads=threads,
            calibration_images=calibration_images,
            camera=camera_size,
            memory_rows=memory_rows,
            tiles=grid,
            reading=reading,
        )
        manifest = export_bundle(
            loaded,
            config,
            progress,
        )
    print_summary(console, config.output, manifest)
    if licence is not None:
        console.print(f"warning: {licence}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if triton is not None:
        served = write_repository(Bundle.open(config.output), triton)
        console.print(f"Triton model {served}", highlight=False, markup=False)
    if as_json:
        click.echo(manifest.to_json(), nl=False)


def _engine_request(
    engine: str,
    compute_capability: str | None,
    workspace: int | None,
    compatibility: str | None,
    strip_weights: bool,
    precision: str,
) -> EngineRequest:
    """The engines that the flags ask for, as yet for single frames.

    Raises:
        ExportError: GPUs that are none, or that the precision does not run on.
    """
    from kanoclip.export.engine import EngineRequest, default_targets, parse_compute_capabilities
    from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions
    from kanoclip.runtime.engines.tensorrt.building.provide import timing_file
    from kanoclip.runtime.engines.tensorrt.flavour import RTX

    options = BuildOptions(
        max_batch=1,
        workspace=workspace << 20 if workspace is not None else None,
        compatibility=compatibility or "none",
        stripped=strip_weights,
    )
    if engine == RTX:
        targets = parse_compute_capabilities(compute_capability) if compute_capability else default_targets(precision)
        return EngineRequest(engine, replace(options, targets=targets))
    return EngineRequest(engine, replace(options, timing_cache=timing_file()))


def _check_engine_flags(
    engine: str | None,
    compute_capability: str | None,
    workspace: int | None,
    compatibility: str | None,
    strip_weights: bool,
) -> None:
    given = {
        "--compute-capability": compute_capability,
        "--workspace": workspace,
        "--compatibility": compatibility,
        "--strip-weights": strip_weights or None,
    }
    belongs = {
        "--compute-capability": ("tensorrt-rtx",),
        "--workspace": ("tensorrt-rtx", "tensorrt"),
        "--compatibility": ("tensorrt",),
        "--strip-weights": ("tensorrt",),
    }
    for flag, engines in belongs.items():
        if given[flag] is not None and engine not in engines:
            raise click.UsageError(f"{flag} needs --engine {' or '.join(engines)}.")


def _check_tile_flags(
    tiles: str | None, overlap: float | None, camera: tuple[int, int] | None, parity_images: Path | None
) -> None:
    if overlap is not None and tiles is None:
        raise click.UsageError("--overlap needs --tiles.")
    if tiles is not None and camera is not None:
        raise click.UsageError("--camera-size and --tiles exclude each other: such a graph sees the whole frame.")
    if tiles == AUTO and parity_images is None:
        raise click.UsageError("--tiles auto needs --parity-images: name frames such as the camera will give.")


def _example_images() -> Path:
    return Path(str(resources.files("kanoclip.examples").joinpath("hazelnut_toy")))
