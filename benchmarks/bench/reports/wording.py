"""What the terminal, the Markdown table and the page say alike: one wording for each figure, a dash for none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kanoclip.benchmarks.bench.comparison.baseline import Change
from kanoclip.benchmarks.bench.stages import STAGES

DASH = "-"
SLOWER = "SLOWER"


def number(value: float | None, digits: int = 1) -> str:
    """A figure, or a dash where there is none."""
    return DASH if value is None else f"{value:,.{digits}f}"


def title(result: Mapping[str, Any]) -> str:
    """The bundle and the machine."""
    bundle, environment = result["bundle"], result["environment"]
    height, width = bundle["image_size"]
    place = ", ".join(
        [f"{environment['cpu'] or environment['machine']}, {environment['cores']} cores", *environment["gpus"]]
    )
    cut = f" in {tiles} tiles" if (tiles := result["settings"].get("tiles")) else ""
    return f"{bundle['name']}: {bundle['backbone']}, {bundle['precision']}, {height}x{width}{cut}, on {place}"


@dataclass(frozen=True)
class Rows:
    """A table.

    Attributes:
        title: What it shows.
        head: Names of the columns.
        rows: One for each runner, its name first.
    """

    title: str
    head: list[str]
    rows: list[list[str]]


def tables(result: Mapping[str, Any]) -> list[Rows]:
    """All tables of what was measured."""
    found = (_latency(result), _gpu(result), _stages(result), _rates(result), _costs(result))
    return [table for table in found if table is not None]


def _latency(result: Mapping[str, Any]) -> Rows:
    head = ["runner", "p50", "p90", "p95", "p99", f"x {result['settings']['reference']}", "95 %"]
    rows = []
    for name, runner in result["runners"].items():
        ratio = runner["ratio"]
        interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
        times = (number(runner[f"p{share}_ms"], 2) for share in (50, 90, 95, 99))
        rows.append([name, *times, number(ratio["value"], 3), interval])
    return Rows(f"Latency of {result['settings']['rounds']} runs in turns, ms", head, rows)


def _gpu(result: Mapping[str, Any]) -> Rows | None:
    """Where TensorRT's runs go, a line for each way of starting them."""
    rows = []
    for name, runner in result["runners"].items():
        for way, times in runner.get("gpu_ms", {}).items():
            figures = (times[column] for column in ("enqueue", "upload", "compute", "download", "total"))
            rows.append([f"{name}, {way.replace('_', ' ')}", *(number(value, 3) for value in figures)])
    head = ["runner", "enqueue", "H2D", "compute", "D2H", "GPU in all"]
    return Rows("A run on the GPU by its own clock, median ms", head, rows) if rows else None


def _costs(result: Mapping[str, Any]) -> Rows:
    rows = []
    for name, runner in result["runners"].items():
        start, drift = runner.get("start", {}), runner["drift"]
        rows.append([name, number(start.get("first_verdict_s"), 2), number(start.get("peak_memory_mb"), 0)])
        rows[-1] += [number(start.get("device_memory_mb"), 0)]
        rows[-1] += [number(runner.get("energy", {}).get("joules_per_frame"), 2)]
        rows[-1] += [DASH if drift is None else f"{drift['map']:.0e}"]
    head = ["runner", "first verdict s", "memory MB", "GPU MB", "J a frame", "map drift"]
    return Rows("Start, memory, energy, and how far the answers are from the most exact engine's", head, rows)


def _stages(result: Mapping[str, Any]) -> Rows | None:
    """Median milliseconds by stage."""
    if not any("stages_ms" in runner for runner in result["runners"].values()):
        return None
    rows = [
        [name, *(number(runner["stages_ms"][stage], 2) for stage in STAGES)]
        for name, runner in result["runners"].items()
    ]
    return Rows("Stages of a frame from a 1080p video, median ms", ["runner", *STAGES], rows)


def _rates(result: Mapping[str, Any]) -> Rows | None:
    """Fps against batch, and of a whole stream."""
    sizes = [str(size) for size in result["settings"]["batches"]]
    runners = result["runners"]
    if not any("batches_fps" in one or "stream" in one for one in runners.values()):
        return None
    head = ["runner", *(f"batch {size}" for size in sizes), "stream", "in inference", "2 at a time", "in inference"]
    rows = []
    for name, runner in runners.items():
        rates, streams = runner.get("batches_fps", {}), runner.get("stream", {})
        row = [name, *(number(rates.get(size)) for size in sizes)]
        for workers in ("1", "2"):
            reported = streams.get(workers)
            row += [number(reported["fps"]), f"{reported['inside_inference']:.0%}"] if reported else [DASH, DASH]
        rows.append(row)
    return Rows("fps against batch, and of a whole stream of 1080p", head, rows)


def notes(result: Mapping[str, Any]) -> list[str]:
    """What one must know to read the tables."""
    bundle, settings = result["bundle"], result["settings"]
    found = []
    if tiles := settings.get("tiles"):
        found.append(f"a frame is all of its {tiles} tiles, each at the model's size")
    elif bundle["dynamic_batch"] is False:
        found.append(
            f"the graph takes a batch of {bundle['max_batch']} and no other: kanoclip-export --dynamic-batch 8 "
            "makes one whose throughput can be measured against batch"
        )
    if settings["batch"] > 1:
        found.append(f"a run is a batch of {settings['batch']} frames")
    found += [f"{name} was left out: {reason}" for name, reason in result["left_out"].items()]
    meters = {runner["energy"]["meter"] for runner in result["runners"].values() if "energy" in runner}
    found += [f"energy: {meter}" for meter in sorted(meters)]
    if clocks := result.get("clocks"):
        moments = ", ".join(f"{clocks[when]['sm_mhz']:.0f} {when}" for when in ("before", "busy", "after"))
        locked = "locked" if clocks["locked"] else "not locked"
        found.append(f"clocks {locked}: {moments}, of {clocks['busy']['most_mhz']:.0f} MHz")
    if settings["pieces_of_an_earlier_run"]:
        found.append(f"{settings['pieces_of_an_earlier_run']} pieces were measured by an earlier run (--resume)")
    return found


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Why the figures may not hold."""
    reasons = result["quiet"]["reasons"]
    return [f"this machine was not quiet: {'; '.join(reasons)}"] if reasons else []


def closing(result: Mapping[str, Any]) -> list[str]:
    """How near each runner comes to what the machine can do; or why that is not known."""
    if "roofline" not in result["settings"]["parts"]:
        return []
    if result["peaks"]["why_no_roofline"]:
        return [f"no share of what this machine can do: {result['peaks']['why_no_roofline']}"]
    found = []
    for name, runner in result["runners"].items():
        reported = runner.get("roofline")
        if reported is None:
            found.append(f"{name}: no peak of its products could be measured")
            continue
        bound = (
            f"{reported['peak']:,.0f} GFLOP/s of products ({reported['by']})"
            if reported["bound_by"] == "products"
            else "copying"
        )
        line = f"{name}: {reported['share']:.0%} of what this machine can do "
        line += f"(at least {reported['milliseconds']:.2f} ms, by {bound}; took {runner['p50_ms']:.2f} ms)"
        if reported["best_fps"] > runner["fps"] * 1.05:
            line += f"; {reported['share_at_best_fps']:.0%} at its best rate, {reported['best_fps']:.1f} fps"
        found.append(line)
    return found


def change_lines(changes: Sequence[Change], allowed: float, peaks: Mapping[str, float]) -> list[str]:
    """Each runner against the baseline."""
    found = []
    for change in changes:
        ratio = change.ratio
        verdict = f"{SLOWER} by more than {allowed:.0%}" if change.regressed else "within what is allowed"
        interval = f"95 %: {ratio.low:.3f} to {ratio.high:.3f}"
        found.append(f"{change.runner}: {ratio.value:.3f} x the baseline's time ({interval}): {verdict}")
    found += [
        f"the machine's own products, {name}: {value:.2f} x the baseline's speed" for name, value in peaks.items()
    ]
    return found
