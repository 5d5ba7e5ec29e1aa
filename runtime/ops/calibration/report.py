"""What a calibration found, in sentences and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.errors import printable
from kanoclip.runtime.ops.calibration.calibrate import INTERVAL, Calibration, Setting
from kanoclip.runtime.ops.calibration.gather import Values

MOST_NAMED = 3
"""Good frames that are named for their high scores."""


def sentences(found: Calibration, before: Thresholds, rule: AlarmRule) -> list[str]:
    """One line each: the thresholds, the promise, what is known of this calibration, the alarm, what is caught.

    Args:
        found: The calibration.
        before: The thresholds that it replaces.
        rule: When the stream's alarm is raised.
    """
    lines = [
        f"image threshold {found.image.threshold:.6f} (was {before.image:.6f}), "
        f"pixel threshold {found.pixel.threshold:.6f} (was {before.pixel:.6f})",
        *(_promise(found) if found.catch is None else _cost(found, found.catch)),
    ]
    if rule != EVERY_FRAME:
        lines.append(
            f"alarm {rule}: the good frames in their order raise it {found.alarms} times; only an anomalous frame can, "
            "so it is raised no more often than that"
        )
    for name, setting in (("image", found.image), ("pixel", found.pixel)):
        if (caught := setting.caught) is not None:
            lines.append(
                f"{caught.hits} of {caught.frames} bad frames reach the {name} threshold: "
                f"{caught.hits / caught.frames:.1%} ({INTERVAL:.0%} interval {caught.low:.1%} to {caught.high:.1%})"
            )
    return lines


def highest(good: Values) -> str:
    """The good frames that set the threshold by their scores, by name: a bad one among them would raise it."""
    order = np.argsort(-good.scores, kind="stable")[:MOST_NAMED]
    shown = ", ".join(f"{printable(good.names[number])} ({good.scores[number]:.4f})" for number in order)
    return f"the good frames with the highest scores: {shown}; look at them, for a bad one raises the threshold"


def _promise(found: Calibration) -> list[str]:
    """What thresholds promise that a rate set."""
    promised = found.bound
    scope = "on average over" if promised.confidence is None else f"in {promised.confidence * 100:.4g} of 100"
    rate = f"{promised.rate:.3g}"
    counted = f"{promised.frames} good frame{'s' * (promised.frames != 1)}"
    return [
        f"{counted}, {promised.allowed} above each: of good frames to come at most "
        f"{rate} reach the image threshold, at most {rate} the pixel threshold ({scope} calibrations)",
        f"this one keeps {rate} with probability {promised.sureness:.2f}, and "
        f"{promised.rate_within(INTERVAL):.2g} with {INTERVAL:g}; {promised.mean_rate:.2g} is to be expected",
    ]


def _cost(found: Calibration, catch: float) -> list[str]:
    """What a threshold costs that bad frames set."""
    promised = found.bound
    return [
        f"to catch {catch:.0%} of the bad frames, {promised.allowed} of {promised.frames} good ones are called "
        f"anomalous: of good frames to come about {promised.mean_rate:.2g} will be, and with {INTERVAL:g} at most "
        f"{promised.rate_within(INTERVAL):.2g}"
    ]


def as_json(found: Calibration, before: Thresholds, rule: AlarmRule) -> dict[str, Any]:
    """The same as JSON values; rates are shares."""
    promised = found.bound

    def setting(one: Setting, was: float) -> dict[str, Any]:
        return {
            "threshold": one.threshold,
            "before": was,
            "neighbours": one.dependence.neighbours,
            "effective_frames": one.dependence.effective,
            "caught": None if one.caught is None else asdict(one.caught),
        }

    return {
        "false_alarm_rate": promised.rate,
        "confidence": promised.confidence,
        "frames": promised.frames,
        "skipped": found.skipped,
        "allowed_above": promised.allowed,
        "expected_rate": promised.mean_rate,
        "probability_rate_is_kept": promised.sureness,
        "rate_with_95": promised.rate_within(INTERVAL),
        "dependent": found.dependent,
        "catch": found.catch,
        "image": setting(found.image, before.image),
        "pixel": setting(found.pixel, before.pixel),
        "alarm": str(rule),
        "alarms_by_good_frames": found.alarms,
    }
