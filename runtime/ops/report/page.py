"""The page: one file that needs no network, no script and nothing beside it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from kanoclip.runtime.ops.report import changes, plots
from kanoclip.runtime.ops.report.cases import Case, make_case, overlay
from kanoclip.runtime.ops.report.comparison import compare_results
from kanoclip.runtime.ops.report.results import MEASURES, Group, Results

GROUPS = 20
"""Rows of a table of groups; of more, the most anomalous are shown."""
ALONG = ("brightness", "sharpness")
"""Measures that are drawn along the run, beside the score."""


@dataclass(frozen=True)
class Options:
    """What the page shows.

    Attributes:
        worst: Images with the highest scores.
        closest: Images closest to the threshold.
        images: Whether images go into the page.
        maps: Folder of maps; None without.
    """

    worst: int = 24
    closest: int = 8
    images: bool = True
    maps: Path | None = None


def make_page(
    results: Results,
    reference: Results | None,
    options: Options,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """The page as HTML.

    Args:
        results: The table.
        reference: What it is compared with; None for nothing.
        options: What is shown.
        on_progress: Called with how many of its images are read.
    """
    comparison = None if reference is None else compare_results(reference, results)
    title = f"{results.path.name}: {results.run['bundle']}"
    worst, closest = _cases(results, options, on_progress)
    parts = [_head(results), _figures(results)]
    if reference is not None and comparison is not None:
        parts.append(changes.verdict(comparison, reference))
    if results.scored.any():
        parts += [_scores(results, reference), _along(results, reference)]
    if reference is not None and comparison is not None:
        parts.append(changes.drifts(comparison, results, reference))
    parts += [_groups(results), worst, closest, _unscored(results), _made(results)]
    style = resources.files("kanoclip.runtime.ops.report").joinpath("style.css").read_text(encoding="utf-8")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_e(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head><body>\n{body}\n</body></html>\n'


def _head(results: Results) -> str:
    run = results.run
    made = f"{run['bundle']} by {run['backend']} on {run['device']}, kanoclip-edge {run['version']}"
    return f'<header><h1>{_e(results.path.name)}</h1><p class="made">{_e(made)}</p></header>'


def _figures(results: Results) -> str:
    scored = int(results.scored.sum())
    bad, lost = int(results.anomalous.sum()), results.rows - scored
    known = results.scores[results.scored]
    tiles = [
        ("", f"{results.rows:,}", "pictures"),
        ("bad" if bad else "", f"{bad:,}", f"anomalous, {_share(bad, scored)} of those scored"),
        ("bad" if lost else "", f"{lost:,}", "could not be scored"),
    ]
    if scored:
        tiles.append(("", f"{np.median(known):.3f}", f"median score, highest {known.max():.3f}"))
    cells = "".join(
        f'<div class="figure {kind}"><b>{value}</b><span>{what}</span></div>' for kind, value, what in tiles
    )
    return f'<div class="figures">{cells}</div>'


def _scores(results: Results, reference: Results | None) -> str:
    scored = results.scored
    before = None if reference is None else reference.scores[reference.scored]
    thresholds = sorted(set(results.thresholds[scored].tolist()))
    plot = plots.histogram(results.scores[scored], results.anomalous[scored], thresholds[:8], before)
    legend = '<span><i class="n"></i>below the threshold</span><span><i class="a"></i>anomalous</span>'
    if reference is not None:
        legend += f'<span><i class="b"></i>{_e(reference.path.name)}, as if it had as many</span>'
    return f'<section><h2>Scores</h2><p class="legend">{legend}</p>{plot}</section>'


def _along(results: Results, reference: Results | None) -> str:
    """Figures in the order of the work list: when something happened."""
    thresholds = set(results.thresholds[results.scored].tolist())
    limit = thresholds.pop() if len(thresholds) == 1 else None
    drawn = [("score", results.scores, None if reference is None else reference.scores, limit)]
    for name in ALONG:
        drawn.append((name, results.measures[name], None if reference is None else reference.measures[name], None))
    plotted = []
    for name, values, before, line in drawn:
        known = None if before is None else before[~np.isnan(before)]
        plotted.append(f"<h3>{name.capitalize()}</h3>{plots.timeline(values, name, known, line)}")
    plotted.append(changes.moved(results, reference))
    note = "Median and the middle nine tenths, in the order of the images"
    note += "." if reference is None else "; the reference's over the whole width in violet."
    return f'<section><h2>Along the run</h2><p class="note">{note}</p>{"".join(plotted)}</section>'


def _groups(results: Results) -> str:
    tables = [("By class", results.groups("class")), ("By folder", results.groups("folder"))]
    return "".join(_group_table(title, groups) for title, groups in tables)


def _group_table(title: str, groups: Sequence[Group]) -> str:
    widest = max((group.anomalous / group.images for group in groups), default=0.0) or 1.0
    rows = "".join(
        f"<tr><td>{_e(group.name)}</td><td>{group.images:,}</td><td>{group.anomalous:,}</td>"
        f'<td class="share"><i style="width:{70 * group.anomalous / group.images / widest:.0f}px"></i>'
        f"{_share(group.anomalous, group.images)}</td><td>{group.unscored:,}</td>"
        f"<td>{_score(group.median)}</td><td>{_score(group.p95)}</td><td>{_score(group.highest)}</td></tr>"
        for group in groups[:GROUPS]
    )
    names = ("name", "pictures", "anomalous", "share", "unscored", "median", "95th percentile", "highest")
    head = "".join(f"<th>{name}</th>" for name in names)
    more = f'<p class="note">{len(groups) - GROUPS:,} more are less anomalous.</p>' if len(groups) > GROUPS else ""
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<section><h2>{title}</h2>{table}{more}</section>"


def _cases(results: Results, options: Options, on_progress: Callable[[int, int], None]) -> tuple[str, str]:
    """The sections of the worst and of the closest images."""
    worst = results.worst(options.worst)
    closest = [row for row in results.closest(options.closest + len(worst)) if row not in set(worst)][: options.closest]
    rows = worst + closest
    made = []
    for number, row in enumerate(results.read(rows) if rows else []):
        on_progress(number, len(rows))
        if not options.images:
            made.append(Case(row, None, reason="images left out"))
            continue
        made.append(make_case(row, options.maps, results.run["decisions"][row["class"]]["pixel_threshold"]))
    switches = '<label class="switch"><input type="checkbox" id="lines" checked> outlines</label>'
    if any(case.overlay for case in made):
        switches += '<label class="switch"><input type="checkbox" id="heatmap" checked> map&nbsp;&nbsp;</label>'
    first = "".join(_case(case) for case in made[: len(worst)])
    second = "".join(_case(case) for case in made[len(worst) :])
    return (
        f'<section>{switches}<h2>Highest scores</h2><div class="cases">{first}</div></section>' if first else "",
        f'<section><h2>Closest to the threshold</h2><div class="cases">{second}</div></section>' if second else "",
    )


def _case(case: Case) -> str:
    row = case.row
    if case.image is None:
        view = f'<span class="view"><span class="gone">{_e(case.reason)}</span></span>'
    else:
        map_layer = "" if case.overlay is None else f'<img class="heatmap" src="{case.overlay}" alt="">'
        view = f'<span class="view"><img src="{case.image}" alt="" loading="lazy">{map_layer}{overlay(row)}</span>'
    verdict = '<span class="verdict-bad">anomalous</span>' if row["is_anomalous"] else "normal"
    count = len(row["regions"])
    found = f"{count} region{'' if count == 1 else 's'}" if count else "no region"
    caption = f"{found}, map up to {row['peak']:.3f}, {row['width']} x {row['height']}"
    return (
        f'<figure class="case">{view}<figcaption><strong>{row["score"]:.3f}</strong> {verdict}, {_e(row["class"])}<br>'
        f"{caption}<br>{_e(row['path'])}</figcaption></figure>"
    )


def _unscored(results: Results) -> str:
    lost = results.rows - int(results.scored.sum())
    if not lost:
        return ""
    listed = results.reasons()
    counted = "".join(
        f"<tr><td>{_e(reason)}</td><td>{count:,}</td></tr>"
        for reason, count in Counter(reason for _, reason in listed).most_common()
    )
    rows = "".join(f"<tr><td>{_e(path)}</td><td>{_e(reason)}</td></tr>" for path, reason in listed)
    of = f", the first {len(listed)} of {lost:,}" if lost > len(listed) else ""
    return (
        f"<section><h2>Without a score{of}</h2><table><tbody>{counted}</tbody></table>"
        f"<details><summary>file by file</summary><table><tbody>{rows}</tbody></table></details></section>"
    )


def _made(results: Results) -> str:
    run = results.run
    facts = {
        "Bundle": f"{run['bundle']}, manifest {run['bundle_sha256']}",
        "Engine": f"{run['backend']} on {run['device']}, threads {run['threads']}",
        "Work list": f"{run['pictures']:,} images, {run['list_sha256']}",
        "Slice": f"{run['slice']} images",
    }
    for name, decision in run["decisions"].items():
        region = "whole image" if decision["roi"] is None else f"region {decision['roi'][:12]}"
        facts[f"Class {name}"] = (
            f"threshold {decision['threshold']:g}, pixel threshold {decision['pixel_threshold']:g}, "
            f"smallest area {decision['min_area']}, {region}"
        )
    for name in MEASURES:
        known = results.measures[name][results.scored]
        if known.size:
            low, middle, high = np.percentile(known, [5, 50, 95])
            facts[name.capitalize()] = f"median {middle:.4g}, middle nine tenths {low:.4g} to {high:.4g}"
    rows = "".join(f"<dt>{_e(name)}</dt><dd>{_e(value)}</dd>" for name, value in facts.items())
    return f"<section><h2>What made it</h2><dl>{rows}</dl></section>"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _score(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _e(text: object) -> str:
    return html.escape(str(text))
