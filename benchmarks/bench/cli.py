"""`kanoclip-bench`: how fast a bundle is here, where the time goes, and how far that is from the machine's limits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kanoclip.benchmarks.bench.runners.runners import COMPARABLE
from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.cli.options import (
    BundleCommand,
    backend_options,
    bundle_option,
    debug_option,
    json_option,
    quiet_option,
)
from kanoclip.runtime.cli.terminal.building import builds_shown
from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.cli.terminal.quiet import native_chatter_silenced
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.service.logs import log_lines

if TYPE_CHECKING:
    from kanoclip.benchmarks.bench.measure import Settings
    from kanoclip.benchmarks.bench.turns import Tick

REGRESSION = 3
"""Exit code."""
PARTS = ("latency", "gpu", "stages", "batches", "stream", "start", "energy", "roofline")
_EPILOG = """
Examples:

\b
  kanoclip-bench                                             # the bundle here, or the built-in one
  kanoclip-bench line3.kanoclip --compare torch,openvino,onnxruntime --html line3.html
  kanoclip-bench --backend tensorrt --compare torch,torch-compile,onnxruntime --output gpu.json
  kanoclip-bench line3.kanoclip --rounds 300 --resume line3.rounds --markdown line3.md
  kanoclip-bench line3.kanoclip --output new.json --baseline old.json --max-regression 5

docs/benchmarking.md says what each figure means. Exit codes: 0 fine; 1 a failure; 2 wrong usage; 3 slower than the
baseline.
"""


def _list_of(known: Sequence[str], what: str) -> Any:
    """A callback that reads a list with commas."""

    def read(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is no {what}: choose of {', '.join(known)}.", ctx=ctx, param=param)
        return names

    return read


def _percentage(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value < math.inf:
        raise click.BadParameter("give a percentage of 0 or more.", ctx=ctx, param=param)
    return value / 100


def _file(name: str, help_text: str) -> Any:
    return click.option(name, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help=help_text)


@click.command(cls=BundleCommand, epilog=_EPILOG)
@bundle_option
@backend_options
@click.option(
    "--compare",
    default="",
    callback=_list_of(COMPARABLE, "runner"),
    metavar="NAME,...",
    help=f"What else takes turns on the same frames, of {', '.join(COMPARABLE)}; the first is what ratios are to.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Timed runs of each. p99 of 100 is all but the slowest one.",
)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=5, show_default=True, help="Runs of each before the first round."
)
@click.option(
    "--stream-seconds",
    "stream_s",
    type=click.FloatRange(min=0.1),
    default=4.0,
    show_default=True,
    help="How long each of the streams lasts.",
)
@click.option(
    "--parts",
    default=",".join(PARTS),
    callback=_list_of(PARTS, "part"),
    metavar="PART,...",
    help=f"What to measure, of {', '.join(PARTS)}; latency always is. Default: all.",
)
@_file("--output", "Write everything, rounds and environment included, as JSON.")
@_file("--markdown", "Write the tables as Markdown.")
@_file("--html", "Write one self-contained page with plots.")
@_file("--resume", "Keep what is measured in FILE as it comes; a run that was killed goes on from it.")
@_file("--baseline", "A file that --output has written: print ratios to it, and fail where a runner has become slower.")
@click.option(
    "--max-regression",
    "allowed",
    type=float,
    default=5.0,
    show_default=True,
    callback=_percentage,
    metavar="PERCENT",
    help="By how much a runner may be slower than the baseline; it fails when the whole interval is above.",
)
@click.option("--force", is_flag=True, help="Compare with a baseline of another machine, bundle or setting.")
@json_option
@quiet_option
@debug_option
def command(
    bundle: str | None,
    backend: str,
    device: str,
    threads: int | None,
    compare: tuple[str, ...],
    rounds: int,
    warmup: int,
    stream_s: float,
    parts: tuple[str, ...],
    output: Path | None,
    markdown: Path | None,
    html: Path | None,
    resume: Path | None,
    baseline: Path | None,
    allowed: float,
    force: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
) -> int:
    """Measure a bundle on this machine: latency, stages, throughput, memory, energy, and the machine's own limits.

    Without BUNDLE: the one *.kanoclip in this folder, or the built-in one.
    """
    from kanoclip.benchmarks.bench import measure
    from kanoclip.benchmarks.bench.comparison import baseline as baselines
    from kanoclip.benchmarks.bench.journal import Journal
    from kanoclip.benchmarks.bench.machine.identity import whole_environment
    from kanoclip.benchmarks.bench.reports import wording as words
    from kanoclip.benchmarks.bench.reports.output import show, write
    from kanoclip.benchmarks.bench.runners.runners import first_batch, tiles_title
    from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting

    for path in (output, markdown, html):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"{path.parent} is no folder: make it first.")
    outputs = {"--output": output, "--markdown": markdown, "--html": html, "--resume": resume}
    inputs = [Read("the bundle", find_bundle(bundle, Path.cwd()), closed=True)]
    refuse_overwriting(
        [Written(flag, path) for flag, path in outputs.items() if path is not None],
        [*inputs, Read("the baseline", baseline)] if baseline is not None else inputs,
    )
    older = None if baseline is None else baselines.read_baseline(baseline)
    human = Console(stderr=as_json, quiet=quiet, highlight=False, soft_wrap=True)
    with native_chatter_silenced(active=not debug), log_lines(quiet=quiet):
        opened = Bundle.open(find_bundle(bundle, Path.cwd()))
        names = tuple(dict.fromkeys((backend, *compare)))
        chosen = measure.Settings(
            names,
            compare[0] if compare else backend,
            device,
            threads,
            rounds,
            warmup,
            stream_s,
            ("latency", *_rest(parts)),
        )
        environment = whole_environment()
        if older is not None and not force:
            differ = baselines.differences(
                older,
                environment,
                opened.graph_digest(),
                device=device,
                threads=threads,
                batch=first_batch(opened),
                tiles=tiles_title(opened),
            )
            if differ:
                raise KanoclipError(
                    f"--baseline {baseline} is no measure of this: {'; '.join(differ)}; --force compares all the same"
                )
        with (
            Journal(resume, measure.run_of(opened, chosen, environment)) as journal,
            builds_shown(Console(stderr=True, quiet=quiet)) as report,
            _progress(chosen, quiet) as tick,
        ):
            result = measure.measure(opened, chosen, journal, environment, report, tick)
    changes = [] if older is None else baselines.compare(older, result, allowed)
    compared: list[str] = []
    if older is not None:
        compared = words.change_lines(changes, allowed, baselines.peak_ratios(older, result))
        result["baseline"] = {
            "file": str(baseline),
            "allowed": allowed,
            "changed_versions": baselines.changed_versions(older, environment),
            "changes": {change.runner: {**vars(change.ratio), "regressed": change.regressed} for change in changes},
        }
    show(result, compared, human)
    record = json.dumps(result, indent=2, allow_nan=False) + "\n"
    write(result, compared, record, output, markdown, html)
    if as_json:
        click.echo(record, nl=False)
    return REGRESSION if any(change.regressed for change in changes) else 0


def _rest(parts: Sequence[str]) -> list[str]:
    return [part for part in PARTS if part in parts and part != "latency"]


@contextmanager
def _progress(chosen: Settings, quiet: bool) -> Iterator[Tick]:
    """A bar for the part that is being measured, on a terminal only."""
    console = Console(stderr=True)
    totals = {"latency": chosen.rounds, "stages": chosen.few, "batches": chosen.few}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)
        current = "loading"

        def tick(part: str) -> None:
            nonlocal current
            if part != current:
                current = part
                bar.reset(task, total=totals.get(part), description=part)
            else:
                bar.advance(task)

        yield tick
