"""The page's sections on what has changed since the reference."""

from __future__ import annotations

import html

import cv2
import numpy as np

from kanoclip.runtime.ops.report import plots
from kanoclip.runtime.ops.report.cases import png_url
from kanoclip.runtime.ops.report.comparison import Comparison, block_means, mean_image, shifts
from kanoclip.runtime.ops.report.drift import LEAST_SHIFT, Values, find_shift
from kanoclip.runtime.ops.report.results import Results

_TITLES = {
    "none": "Nothing has changed since the reference",
    "slight": "Slightly changed since the reference",
    "marked": "Changed since the reference",
}


def verdict(comparison: Comparison, reference: Results) -> str:
    """How much has changed, in sentences."""
    level = comparison.level
    lines = "".join(f"<li>{html.escape(line)}.</li>" for line in comparison.sentences())
    remarks = "".join(f"<p>{html.escape(line)}</p>" for line in comparison.remarks)
    return (
        f'<section class="verdict {level}"><h2>{_TITLES[level]}, {html.escape(reference.path.name)}</h2>'
        f"{f'<ul>{lines}</ul>' if lines else ''}{remarks}</section>"
    )


def moved(results: Results, reference: Results | None) -> str:
    """By how much the mean image of each piece is shifted against the reference, or against the first piece."""
    first = next((mean for mean in block_means(results) if mean is not None), None)
    if reference is None and len(results.blocks) < 2:
        return ""
    found = shifts(results, first if reference is None else mean_image(reference))
    values = [None if one is None else 100 * one.length for one in found]
    if not any(value is not None for value in values):
        return ""
    against = "the first piece of the run" if reference is None else "the reference"
    return (
        f"<h3>Shift of the mean image against {against}, in per cent of its side</h3>"
        f"{plots.steps(values, 'shift', 100 * LEAST_SHIFT)}"
    )


def drifts(comparison: Comparison, results: Results, reference: Results) -> str:
    """The figures of each measure, before and now, and the mean images."""
    rows = "".join(
        f"<tr><td>{drift.name}</td><td>{drift.before:.4g}</td><td>{drift.now:.4g}</td><td>{drift.psi:.3f}</td>"
        f"<td>{drift.chance:.3f}</td><td>{drift.distance:.3f}</td><td>{_probability(drift.p)}</td>"
        f'<td><span class="chip {drift.level}">{drift.level}</span></td></tr>'
        for drift in comparison.drifts
    )
    head = "".join(
        f"<th>{name}</th>"
        for name in ("figure", "median before", "now", "PSI", "PSI by chance", "KS distance", "KS p", "change")
    )
    note = (
        "PSI, the population stability index over the reference's deciles, is called slight from 0.1 and marked from "
        "0.25, where it is also more than two samples of one population show once in a thousand times. KS is the "
        "two-sample Kolmogorov-Smirnov test: of many images its p is small for differences that do not matter. Both "
        "take images as independent; frames of one part are not."
    )
    return (
        f'<section><h2>Drift against {html.escape(reference.path.name)}</h2><p class="note">{note}</p>'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{_means(results, reference)}</section>"
    )


def _means(results: Results, reference: Results) -> str:
    old, new = mean_image(reference), mean_image(results)
    if old is None or new is None:
        return ""
    shift = find_shift(old, new)
    difference = np.clip(128 + 2 * (new - old), 0, 255)
    likeness = (
        f"shift {100 * shift.across:+.1f} % of the width, {100 * shift.down:+.1f} % of the height"
        if shift.known
        else "too different to say whether it is shifted"
    )
    shown = [
        (old, "mean image of the reference"),
        (new, f"mean image now: {likeness}"),
        (difference, "difference, doubled"),
    ]
    figures = "".join(
        f'<figure><img src="{_grey(image)}" alt=""><figcaption>{html.escape(text)}</figcaption></figure>'
        for image, text in shown
    )
    return f'<h3>Mean images</h3><div class="means">{figures}</div>'


def _grey(image: Values) -> str:
    levels = np.asarray(np.rint(image), np.uint8)
    return png_url(np.asarray(cv2.resize(levels, (200, 200), interpolation=cv2.INTER_CUBIC), np.uint8))


def _probability(p: float) -> str:
    return "&lt; 1e-6" if p < 1e-6 else f"{p:.3g}"
