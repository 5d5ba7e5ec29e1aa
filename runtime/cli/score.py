"""`kanoclip-score`: score any number of images into one table."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.cli.options import (
    BundleCommand,
    backend_options,
    bundle_option,
    chosen_settings,
    debug_option,
    json_option,
    quiet_option,
    reading_options,
    reads_of_flags,
)
from kanoclip.runtime.cli.run_options.kinds import Decimal
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.cli.terminal.score_progress import ScoreProgress
from kanoclip.runtime.engines import GPU_ONLY
from kanoclip.runtime.engines.triton.address import is_triton
from kanoclip.runtime.ops.score.bulk import SLICE, Job, MakePool, Outcome, Pool, State, score
from kanoclip.runtime.ops.score.cluster import LOCAL, Cluster, connected
from kanoclip.runtime.ops.score.listing import TABLE
from kanoclip.runtime.ops.score.places import is_url
from kanoclip.runtime.ops.score.processes import Processes
from kanoclip.runtime.ops.score.run_folder import GOES_ON, RunFolder
from kanoclip.runtime.ops.score.scorer import Engine, manifest_digest
from kanoclip.runtime.ops.score.table import parquet
from kanoclip.runtime.ops.score.work import default_processes, default_readers
from kanoclip.runtime.service.logs import log_lines
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.system.files.guard import Written, refuse_overwriting
from kanoclip.runtime.system.signals import error_on_sigterm

_EPILOG = """
Examples:

\b
  kanoclip-score --source parts/ --output results.parquet
  kanoclip-score --source 'parts/**/*.jpg' --bundle line3.kanoclip --output results.parquet --json
  kanoclip-score --source list.parquet --class-column product --output results.parquet
  kanoclip-score --source s3://line3/2026-11/ --output november.parquet --ray 10.0.0.1:6379
  kanoclip-report results.parquet --reference october.parquet --output report.html

The same command goes on where it was stopped or killed. A machine's settings file is used with --config only.
Exit codes: 0 all images are scored; 1 a failure, or images that could not be read; 2 wrong usage.
docs/scale.md has the columns, clusters, and what a million images cost.
"""

log = logging.getLogger(__name__)


@click.command(cls=BundleCommand, epilog=_EPILOG)
@click.option(
    "--source",
    required=True,
    metavar="PATH|GLOB|TABLE|URL",
    help="A folder, a glob, a Parquet table of paths, or a URL of these that fsspec opens (s3://, gs://, ...).",
)
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="FILE.parquet", help="The table to be made."
)
@bundle_option
@click.option("--class", "class_name", metavar="NAME", help="What the images show; one of the bundle's classes.")
@click.option("--column", default="path", show_default=True, metavar="NAME", help="Column of a table's paths.")
@click.option("--class-column", metavar="NAME", help="Column of a table's classes. Default: --class for all.")
@click.option("--threshold", type=Decimal(0, 1), help="Score from which an image is anomalous. Default: the bundle's.")
@click.option(
    "--pixel-threshold",
    type=Decimal(0, 1),
    help="Map value from which a pixel counts. Default: the bundle's.",
)
@click.option(
    "--min-area",
    type=click.IntRange(min=0),
    help="Smallest region, in original pixels; an anomalous image keeps its peak. Default: the bundle's.",
)
@click.option("--roi", type=click.Path(path_type=Path), metavar="FILE.json", help="Polygons to score inside of.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml", help="Settings for all classes or one.")
@click.option("--maps", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep each whole map, PNG of 16 bits.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Engines at a time. Default: one a core, as memory allows; on a GPU one. With --ray: at the most.",
)
@click.option(
    "--readers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that read ahead for an engine. Default: by source.",
)
@reading_options
@backend_options
@click.option(
    "--slice",
    "size",
    type=click.IntRange(1, 4096),
    default=SLICE,
    show_default=True,
    metavar="N",
    help="Images that are committed together: what a kill costs at the most.",
)
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value=LOCAL,
    metavar="[ADDRESS]",
    help="Score on a Ray cluster: HOST:PORT, `auto`, or without a value on this machine.",
)
@click.option("--restart", is_flag=True, help="Throw away what was begun at this output.")
@json_option
@quiet_option
@debug_option
def command(
    source: str,
    output: Path,
    bundle: str | None,
    class_name: str | None,
    column: str,
    class_column: str | None,
    threshold: float | None,
    pixel_threshold: float | None,
    min_area: int | None,
    roi: Path | None,
    config: Path | None,
    maps: Path | None,
    processes: int | None,
    readers: int | None,
    reading: Reading,
    backend: str,
    device: str,
    threads: int | None,
    size: int,
    address: str | None,
    restart: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Score all images of a folder, glob, table or URL into one Parquet table.

    It may be killed at any time: the same command goes on, with no image twice and none lost, and makes the same
    table. Each engine has one thread unless --threads says otherwise.
    """
    parquet()  # refused before anything is loaded
    if output.suffix != TABLE:
        raise click.UsageError(f"--output {output}: the table is a {TABLE} file")
    if address is not None and device.startswith("cuda:"):
        raise click.UsageError(f"--device {device} with --ray: Ray gives each engine its GPU, so ask for cuda")
    served = is_triton(backend)
    if served and threads is not None:
        raise click.UsageError("a Triton server decides by itself what it runs on: leave --threads out")
    opened = Bundle.open(find_bundle(bundle, Path.cwd()))
    classes = opened.manifest.classes
    if class_name is not None and class_name not in classes:
        raise click.BadParameter(
            f"{class_name!r} is not in this bundle, which knows: {', '.join(classes)}", param_hint="'--class'"
        )
    refuse_overwriting(
        [Written("--output", output), *([Written("--maps", maps, filled=True)] if maps is not None else [])],
        reads_of_flags(opened.root, config, roi, source),
    )
    settings = chosen_settings(config, roi, threshold=threshold, pixel_threshold=pixel_threshold, min_area=min_area)
    settings.check_classes(classes)
    gpu = device.startswith("cuda") or backend in GPU_ONLY
    if address is not None and device == "auto" and not served:
        device = "cuda" if gpu else "cpu"  # Ray shows an engine the GPU that it asked for, and else none
    one_threads = threads or 1
    engine = Engine(
        bundle=opened.root.resolve(),
        bundle_sha256=manifest_digest(opened.root),
        backend=backend,
        device=device,
        threads=one_threads,
        settings=settings,
        class_name=class_name or classes[0],
        maps=maps is not None,
        readers=readers or default_readers(is_url(source), feeds=gpu or served),
        reading=reading,
    )
    count = processes if address is not None else processes or default_processes(opened, one_threads, gpu)
    job = Job(source, output, engine, column, class_column, size, maps, restart)
    human = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    human.print(Text(f"{opened.manifest.name}: {opened.manifest.model.backbone}, {opened.manifest.precision}"))
    with (
        native_chatter_silenced(active=not debug),
        log_lines(),
        error_on_sigterm(f"stopped by SIGTERM; {GOES_ON}"),
        ExitStack() as stack,
    ):
        if not opened.manifest.model.trained:
            log.warning("bundle %s is untrained: its scores mean nothing", opened.manifest.name)
        pools: list[Pool] = []
        outcome = score(job, _maker(address, count, human, stack, pools), _shown(human, stack))
    replaced = sum(pool.replaced for pool in pools if isinstance(pool, Processes))
    _report(job, outcome, count, replaced, human, as_json)
    if outcome.counts.unscored:
        message = f"{outcome.counts.unscored} of {outcome.counts.images} images could not be scored"
        click.echo(f"error: {message}: see the column `error`", err=True)
        return 1
    return os.EX_OK


def _maker(address: str | None, count: int | None, human: Console, stack: ExitStack, pools: list[Pool]) -> MakePool:
    """Who scores: processes of this machine, or a cluster."""

    def make(engine: Engine, folder: RunFolder, on_engine: Callable[[str, str], None]) -> Pool:
        def announce(backend: str, runs_on: str) -> None:
            on_engine(backend, runs_on)
            human.print(Text(f"{runs_on}, {engines} engine{'s' if engines != 1 else ''}, {where}"))

        pool: Pool
        if address is None:
            engines, where = count or 1, "on this machine"
            pool = Processes(engine, engines, folder.list_path, announce)
        else:
            cluster = Cluster(stack.enter_context(connected(address)), engine, count, folder.items, announce)
            engines, where = cluster.count, f"on the Ray cluster {address}"
            pool = cluster
        pools.append(pool)
        return pool

    return make


def _shown(human: Console, stack: ExitStack) -> Callable[[State], None]:
    return stack.enter_context(ScoreProgress(human)).update


def _report(job: Job, outcome: Outcome, count: int | None, replaced: int, human: Console, as_json: bool) -> None:
    """Prints what came of it."""
    counts = outcome.counts
    scored = counts.images - outcome.earlier
    rate = scored / outcome.scoring_s if outcome.scoring_s else None
    line = f"{counts.images:,} images in {job.output}: {counts.anomalous:,} anomalous, {counts.unscored:,} unscored"
    human.print(Text(line, "bold"))
    if outcome.earlier:
        human.print(Text(f"{outcome.earlier:,} of them were scored before this start"))
    if rate is not None and scored:
        human.print(Text(f"{scored:,} in {outcome.scoring_s:.1f} s: {rate:.1f} images/s"))
    if replaced:
        human.print(Text(f"{replaced} processes died and were replaced", "yellow"))
    if as_json:
        values = {
            "output": str(job.output),
            "pictures": counts.images,
            "anomalous": counts.anomalous,
            "unscored": counts.unscored,
            "scored_earlier": outcome.earlier,
            "engine": outcome.runs_on,
            "engines": count,
            "replaced_processes": replaced,
            "wall_s": round(outcome.wall_s, 3),
            "scoring_s": round(outcome.scoring_s, 3),
            "pictures_per_s": None if rate is None else round(rate, 3),
        }
        click.echo(json.dumps(values, allow_nan=False))
