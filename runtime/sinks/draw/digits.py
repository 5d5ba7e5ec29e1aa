"""Scores for people: as many digits as tell a score from its threshold."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

MOST = 6
"""Digits after the point; float32 has no more."""


def apart(score: float, threshold: float, least: int = 2) -> tuple[str, str]:
    """A score and its threshold as text, with the same number of digits.

    With two digits 0.7449 and a threshold of 0.7451 would both be 0.75 or 0.74, and a verdict would look wrong.
    `static/js/drawing/digits.js` does the same.

    Args:
        score: Any number; what is not finite has no digits.
        threshold: What it is compared with.
        least: Digits after the point, at least; where two are not enough it takes more, up to `MOST`.

    Examples:
        >>> apart(0.3, 0.5)
        ('0.30', '0.50')
        >>> apart(0.7449, 0.7451)
        ('0.7449', '0.7451')
        >>> apart(0.5, 0.5)
        ('0.50', '0.50')
    """
    for digits in range(least, MOST + 1):
        texts = _rounded(score, digits), _rounded(threshold, digits)
        if texts[0] != texts[1]:
            return texts
    return texts if score != threshold else (_rounded(score, least), _rounded(threshold, least))


def _rounded(value: float, digits: int) -> str:
    """Half goes up, as in a browser's `toFixed`."""
    if not math.isfinite(value):
        return str(float(value))
    return str(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
