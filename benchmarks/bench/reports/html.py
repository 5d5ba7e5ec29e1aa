"""One page with plots: it needs no network, no script and no file beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kanoclip.benchmarks.bench.reports import svg
from kanoclip.benchmarks.bench.reports import wording as words
from kanoclip.benchmarks.bench.stages import STAGES
from kanoclip.runtime.ops.report.plots import line, linear, text, ticks

BINS = 48
_ROW = 34
"""Height of a bar and the room around it."""
_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --dim: #59636e; --back: #fff; --rule: #d1d9e0; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --back: #0d1117; --rule: #3d444d; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; } svg text { fill: var(--text); font-size: 12px; } svg .label { fill: var(--dim); }
.grid { stroke: var(--rule); stroke-width: 1; } .roof { stroke: var(--text); stroke-width: 2; stroke-dasharray: 6 4; }
rect { opacity: .8; } .line { fill: none; stroke-width: 2.5; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px; }
.warning { border-left: 4px solid #bf8700; padding: .4rem .8rem; } .closing { font-weight: 600; }
dt { color: var(--dim); } dd { margin: 0 0 .3rem 1rem; overflow-wrap: anywhere; }
"""
_PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#b8a500")
"""Okabe and Ito's, which people with any colour vision tell apart."""


def page(result: Mapping[str, Any], compared: Sequence[str]) -> str:
    """The page.

    Args:
        result: What was measured.
        compared: Lines about a baseline.
    """
    title = html.escape(words.title(result))
    colours = "".join(
        f".c{n} {{ fill: {colour}; background: {colour}; }} .s{n} {{ stroke: {colour}; }}"
        for n, colour in enumerate(_PALETTE)
    )
    parts = [f"<h1>{title}</h1>", f"<p>kanoclip-bench, {html.escape(result['environment']['date'])}</p>"]
    parts += [f'<p class="warning">Warning: {html.escape(line)}.</p>' for line in words.warnings(result)]
    parts += [f'<p class="closing">{html.escape(line)}</p>' for line in words.closing(result)]
    parts += [f"<p>{html.escape(line)}</p>" for line in compared]
    names = list(result["runners"])
    parts += ["<h2>Latency</h2>", _legend(names), _histogram(result)]
    for heading, labels, plot in (
        ("Stages of a frame", list(STAGES), _stages(result)),
        ("Throughput against batch", names, _throughput(result)),
        ("Roofline", names, _roofline(result)),
    ):
        if plot is not None:
            parts += [f"<h2>{heading}</h2>", _legend(labels), plot]
    parts += [_table(table) for table in words.tables(result)]
    notes = words.notes(result)
    if notes:
        parts.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in notes) + "</ul>")
    parts.append("<h2>Environment</h2><dl>")
    for name, value in {**result["environment"], **result["settings"]}.items():
        parts.append(f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>")
    parts.append("</dl>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    head += f"<style>{_STYLE}{colours}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _legend(names: Sequence[str]) -> str:
    entries = (
        f'<span><i class="c{number % svg.COLOURS}"></i>{html.escape(name)}</span>' for number, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(entries)}</p>'


def _table(table: words.Rows) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.head)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h2>{html.escape(table.title)}</h2><div class="wide">{body}</div>'


def _histogram(result: Mapping[str, Any]) -> str:
    """Rounds by their time, on a logarithmic axis: runners may be far apart."""
    rounds = {name: np.array(runner["rounds_ms"]) for name, runner in result["runners"].items()}
    low = min(times.min() for times in rounds.values()) / 1.05
    high = max(times.max() for times in rounds.values()) * 1.05
    edges = np.geomspace(low, high, BINS + 1)
    counts = {name: np.histogram(times, edges)[0] for name, times in rounds.items()}
    most = max(int(count.max()) for count in counts.values())
    bottom = svg.HEIGHT - svg.BOTTOM
    x = svg.logarithmic(low, high, svg.LEFT, svg.WIDTH - svg.RIGHT)
    y = linear(0, most, bottom, svg.TOP)
    across = [float(f"{value:.2g}") for value in np.geomspace(low, high, 7)]
    across = sorted({value for value in across if low <= value <= high})
    parts = svg.axes(x, y, across, ticks(0, most), "milliseconds a run", "rounds")
    for number, (name, count) in enumerate(counts.items()):
        for start, end, times in zip(edges, edges[1:], count, strict=False):
            if times:
                title = f"{name}: {times} rounds from {start:.2f} to {end:.2f} ms"
                parts.append(
                    svg.rectangle(x(start), y(times), x(end) - x(start) - 0.5, bottom - y(times), number, title)
                )
    return svg.chart(parts, "Histogram of the latency of each runner")


def _stages(result: Mapping[str, Any]) -> str | None:
    """One bar for each runner, a piece for each stage."""
    found = {name: runner["stages_ms"] for name, runner in result["runners"].items() if "stages_ms" in runner}
    if not found:
        return None
    longest = max(sum(value or 0.0 for value in stages.values()) for stages in found.values())
    x = linear(0, longest, svg.LEFT + 90, svg.WIDTH - svg.RIGHT)
    height = svg.TOP + _ROW * len(found) + svg.BOTTOM
    parts = []
    for value in ticks(0, longest):
        parts += [line(x(value), svg.TOP, x(value), height - svg.BOTTOM)]
        parts += [text(x(value), height - svg.BOTTOM + 16, svg.short(value))]
    for row, (name, stages) in enumerate(found.items()):
        top, start = svg.TOP + _ROW * row + 5, 0.0
        parts.append(text(svg.LEFT + 84, top + 16, name, "end"))
        for number, stage in enumerate(STAGES):
            if spent := stages[stage]:
                title = f"{name}, {stage}: {spent:.2f} ms"
                parts.append(svg.rectangle(x(start), top, x(start + spent) - x(start), _ROW - 10, number, title))
                start += spent
    parts.append(text(svg.WIDTH / 2, height - 6, "milliseconds a frame"))
    return svg.chart(parts, "Milliseconds of each stage of a frame, by runner", height)


def _throughput(result: Mapping[str, Any]) -> str | None:
    """Lines against batch; None where the graph takes one batch only."""
    found = {name: runner.get("batches_fps", {}) for name, runner in result["runners"].items()}
    sizes = result["settings"]["batches"]
    if len(sizes) < 2 or not any(found.values()):
        return None
    most = max(rate for rates in found.values() for rate in rates.values())
    x = svg.logarithmic(sizes[0], sizes[-1], svg.LEFT + 20, svg.WIDTH - svg.RIGHT - 20)
    y = linear(0, most, svg.HEIGHT - svg.BOTTOM, svg.TOP)
    parts = svg.axes(x, y, sizes, ticks(0, most), "batch", "fps")
    for number, (name, rates) in enumerate(found.items()):
        points = [(x(float(size)), y(rate)) for size, rate in rates.items()]
        parts.append(svg.path(points, number))
        for (across, up), (size, rate) in zip(points, rates.items(), strict=True):
            parts.append(svg.circle(across, up, number, f"{name}, batch {size}: {rate:.1f} fps"))
    return svg.chart(parts, "fps of each runner against batch")


def _roofline(result: Mapping[str, Any]) -> str | None:
    """Each runner's rate under the roof of its device, on logarithmic axes."""
    found = {name: runner["roofline"] for name, runner in result["runners"].items() if "roofline" in runner}
    copies = result["peaks"]["copy_gb_s"]
    roofs = {
        (entry["peak"], copies[device]["value"])
        for name, entry in found.items()
        if (device := result["runners"][name]["device"]) in copies
    }
    if not roofs:
        return None
    corners = [peak / copy for peak, copy in roofs]
    places = [entry["flops_per_byte"] for entry in found.values()]
    left, right = min([*corners, *places]) / 8, max([*corners, *places]) * 8
    highest = max(peak for peak, _ in roofs) * 2
    lowest = min([*(entry["gflops"] for entry in found.values()), *(left * copy for _, copy in roofs)]) / 2
    x = svg.logarithmic(left, right, svg.LEFT, svg.WIDTH - svg.RIGHT)
    y = svg.logarithmic(lowest, highest, svg.HEIGHT - svg.BOTTOM, svg.TOP)
    across, up = svg.decades(left, right), svg.decades(lowest, highest)
    parts = svg.axes(x, y, across, up, "operations a byte that must move", "GFLOP/s")
    for peak, copy in sorted(roofs):
        corner = peak / copy
        parts.append(line(x(left), y(left * copy), x(corner), y(peak), "roof"))
        parts.append(line(x(corner), y(peak), x(right), y(peak), "roof"))
        parts.append(text(x(right) - 4, y(peak) - 6, f"{peak:,.0f} GFLOP/s", "end"))
        parts.append(text(x(left) + 24, y(left * copy) + 6, f"{copy:,.0f} GB/s", "start"))
    for number, name in enumerate(result["runners"]):
        if name in found:
            entry = found[name]
            words_of = f"{name}: {entry['gflops']:,.0f} GFLOP/s, {entry['share']:.0%} of what this machine can do"
            parts.append(svg.circle(x(entry["flops_per_byte"]), y(entry["gflops"]), number, words_of))
    return svg.chart(parts, "Roofline: each runner's FLOP/s under the machine's limits")
