"""`kanoclip-doctor`: does this machine give the bundle's answers?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from kanoclip.runtime.bundle.bundle import Bundle, find_bundle
from kanoclip.runtime.bundle.manifest.parts import FLAVOURS
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
from kanoclip.runtime.detect.reference.stored.history import memory_of
from kanoclip.runtime.engines.doctor import Machine, compare, comparison_json, examine_machine, report_of
from kanoclip.runtime.engines.reference import Comparison
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.service.logs import log_lines
from kanoclip.runtime.system.files.guard import Read, Written, refuse_overwriting
from kanoclip.runtime.system.paths import replace_file

_EPILOG = """
Examples:

\b
  kanoclip-doctor                                          # the bundle here, or the built-in one
  kanoclip-doctor line3.kanoclip --backend onnxruntime --device cuda
  kanoclip-doctor line3.kanoclip --backend openvino
  kanoclip-doctor line3.kanoclip --backend tensorrt --rebuild
  kanoclip-doctor line3.kanoclip --json | jq .agrees
  kanoclip-doctor --backend tensorrt --report box7.json    # to send: docs/gpu-reports.md
  kanoclip-doctor --system                                 # the machine alone, for a report of a problem

Exit codes: 0 the engine agrees with the reference; 1 it does not, or cannot run; 2 wrong usage.
"""


@click.command(cls=BundleCommand, epilog=_EPILOG)
@bundle_option
@backend_options
@click.option(
    "--rebuild",
    is_flag=True,
    help="Build the TensorRT engine on this GPU and keep it; attention that it computes wrongly is done in float32.",
)
@click.option("--system", is_flag=True, help="Show the machine alone: no bundle is opened and no engine loaded.")
@json_option
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write all of it as JSON to send, also where the engine cannot run; it holds no path or name of yours.",
)
@quiet_option
@debug_option
def command(
    bundle: str | None,
    backend: str,
    device: str,
    threads: int | None,
    rebuild: bool,
    system: bool,
    as_json: bool,
    report_file: Path | None,
    quiet: bool,
    debug: bool,
) -> int:
    """Check this machine, verify a bundle, and compare its engine with the reference.

    The engine scores the bundle's own images, and ONNX Runtime's plain CPU operators score them too: the answers may
    differ by what the export allowed and no more.
    """
    if rebuild and backend not in FLAVOURS:
        raise click.UsageError(f"--rebuild builds a TensorRT engine: name --backend {' or '.join(FLAVOURS)}.")
    if system and (bundle is not None or rebuild or report_file is not None):
        raise click.UsageError("--system looks at the machine alone: leave --rebuild, --report and the bundle out.")
    human = Console(stderr=as_json, quiet=quiet, highlight=False, soft_wrap=True)
    machine = examine_machine()
    _show_machine(machine, human, Console(stderr=True, highlight=False, soft_wrap=True))
    if system:
        if as_json:
            click.echo(json.dumps({"machine": asdict(machine)}, indent=2, allow_nan=False))
        return 0
    with native_chatter_silenced(active=not debug), log_lines(quiet=quiet):
        found_bundle = find_bundle(bundle, Path.cwd())
        if report_file is not None:
            refuse_overwriting([Written("--report", report_file)], [Read("the bundle", found_bundle, closed=True)])
        opened = Bundle.open(found_bundle)
        manifest = opened.manifest
        model = f"{manifest.model.backbone}, {manifest.precision}"
        human.print(Text(f"bundle {opened.root}: {model}, every file as its manifest says"))
        for line in _learned(opened):
            human.print(Text(f"  {line}"))
        try:
            with builds_shown(Console(stderr=True, quiet=quiet)) as report:
                found = compare(opened, backend, device, threads, report, rebuild=rebuild)
        except KanoclipError as error:
            if report_file is not None:
                _write(report_file, report_of(opened, machine, backend, device, error))
            raise
    if report_file is not None:
        _write(report_file, report_of(opened, machine, backend, device, found))
    _show_comparison(found, human)
    if as_json:
        result = {
            "agrees": found.agrees,
            "bundle": str(opened.root),
            "machine": asdict(machine),
            "comparison": comparison_json(found),
        }
        click.echo(json.dumps(result, indent=2, allow_nan=False))
    return 0 if found.agrees else 1


def _write(path: Path, reported: dict[str, Any]) -> None:
    """Writes a report.

    Raises:
        KanoclipError: The file cannot be written.
    """
    try:
        replace_file(path, (json.dumps(reported, indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise KanoclipError(f"--report {path} cannot be written ({error.strerror}): name another place") from error


def _learned(bundle: Bundle) -> list[str]:
    """How frames are cut, and what was learned of each class; memories are read, so that a damaged one shows here."""
    lines = [] if bundle.manifest.tiles is None else [f"frames are cut into {bundle.manifest.tiles.title} tiles"]
    for name in bundle.manifest.references:
        if (memory := memory_of(bundle, name)) is not None:
            count = len(memory.names)
            lines.append(f"{name}: {count} reference{'s' * (count > 1)}, {len(memory.rows)} rows, of {memory.created}")
    return lines


def _show_machine(machine: Machine, human: Console, complain: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("machine", f"{machine.system}, {machine.cores} cores, Python {machine.python}")
    if machine.jetson is not None:
        table.add_row("Jetson", machine.jetson)
    for gpu in machine.gpus or ("none that a driver answers for",):
        table.add_row("GPU", gpu)
    table.add_row("packages", ", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    human.print(table)
    for problem in machine.problems:
        complain.print(Text(f"warning: {problem}", "yellow"))


def _show_comparison(found: Comparison, human: Console) -> None:
    verdict = Text("yes", "green") if found.agrees else Text("NO", "bold red")
    human.print(
        verdict.append(
            f": {found.backend} against the reference on {found.compared} images: {found.drifts()}; "
            f"{found.milliseconds:.1f} ms a run",
            "default",
        )
    )
    if found.engine is not None:
        human.print(Text(f"engine: {found.engine}; {found.fused_attention} attention blocks fused"))
    if not found.agrees:
        again = "build it anew with --rebuild, " if found.engine is not None else ""
        human.print(
            Text(f"do not use this engine here: {again}choose another --backend or --device, or export with --fp32")
        )
