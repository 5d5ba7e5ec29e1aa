"""What a calibration found, in sentences and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from kanoclip.runtime.bundle.manifest import Thresholds
from kanoclip.runtime.detect.alarm import EVERY_FRAME, AlarmRule
from kanoclip.runtime.ops.calibration.calibrate import INTERVAL, Calibration, Setting


def sentences(found: Calibration, before: Thresholds, rule: AlarmRule) -> list[str]:
    """One line each: the thresholds, the promise, what is known of this calibration, the alarm, what is caught.

    Args:
        found: The calibration.
        before: The thresholds that it replaces.
        rule: When the stream's alarm is raised.
    """
    promised = found.bound
    scope = "on average over" if promised.confidence is None else f"in {promised.confidence * 100:.4g} of 100"
    lines = [
        f"image threshold {found.image.threshold:.6f} (was {before.image:.6f}), "
        f"pixel threshold {found.pixel.threshold:.6f} (was {before.pixel:.6f})",
        f"{promised.frames} good frames, {promised.allowed} above each: of good frames to come at most "
        f"{promised.rate:g} reach the image threshold, at most {promised.rate:g} the pixel threshold "
        f"({scope} calibrations)",
        f"this one keeps {promised.rate:g} with probability {promised.sureness:.2f}, and "
        f"{promised.rate_within(INTERVAL):.2g} with {INTERVAL:g}; {promised.mean_rate:.2g} is to be expected",
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
        "image": setting(found.image, before.image),
        "pixel": setting(found.pixel, before.pixel),
        "alarm": str(rule),
        "alarms_by_good_frames": found.alarms,
    }
