"""An older result beside a new one: ratios with confidence intervals, and whether something has become slower."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanoclip.benchmarks.bench.comparison.bootstrap import Ratio, ratio_of_runs
from kanoclip.benchmarks.bench.machine.identity import other_machine
from kanoclip.benchmarks.bench.measure import FORMAT, VERSION
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.system.files.regular import read_small

SETTINGS = ("device", "threads", "batch", "tiles")


@dataclass(frozen=True)
class Change:
    """One runner against itself in the older result.

    Attributes:
        runner: Its name.
        ratio: Median time now over then.
        regressed: The whole interval is above what is allowed.
    """

    runner: str
    ratio: Ratio
    regressed: bool


def read_baseline(path: Path) -> dict[str, Any]:
    """Reads what `--json` wrote.

    Raises:
        KanoclipError: It cannot be read, or is something else.
    """
    try:
        value = json.loads(read_small(path))
    except (OSError, ValueError, RecursionError) as error:
        raise KanoclipError(
            f"--baseline {path} cannot be read ({error}): name a file that --output has written"
        ) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
        raise KanoclipError(
            f"--baseline {path} is no result of this kanoclip-bench: name a file that --output has written"
        )
    try:
        rounds = [runner["rounds_ms"] for runner in value["runners"].values()]
        right = all(times and all(math.isfinite(t) and t > 0 for t in times) for times in rounds)
        right = right and all(isinstance(value[key], dict) for key in ("environment", "settings"))
        str(value["bundle"]["graph"])
    except (KeyError, TypeError, AttributeError):
        right = False
    if not right:
        raise KanoclipError(f"--baseline {path} is damaged: write it again with --json")
    return value


def differences(baseline: Mapping[str, Any], environment: Mapping[str, Any], graph: str, **settings: Any) -> list[str]:
    """Why the two cannot be compared, in words; empty when they can.

    Args:
        baseline: The older result.
        environment: This machine's.
        graph: Digest of this bundle's graph.
        settings: Of SETTINGS, those that are known.
    """
    found = other_machine(environment, baseline["environment"])
    if baseline["bundle"]["graph"] != graph:
        found.append(f"another bundle's graph there ({baseline['bundle'].get('name')})")
    for name, mine in settings.items():
        theirs = baseline["settings"].get(name)
        if theirs != mine:
            found.append(f"{name} {theirs!r} there, {mine!r} here")
    return found


def changed_versions(baseline: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """Packages whose versions differ: what such a comparison is often made for."""
    older = baseline["environment"]
    keys = sorted(
        key for key in {*older, *environment} if "." in str(older.get(key, "")) + str(environment.get(key, ""))
    )
    skipped = {"date", "cpu", "system", "memory_gb", "libc"}
    return [
        f"{key} {older.get(key, 'none')} -> {environment.get(key, 'none')}"
        for key in keys
        if key not in skipped and older.get(key) != environment.get(key)
    ]


def compare(baseline: Mapping[str, Any], result: Mapping[str, Any], allowed: float) -> list[Change]:
    """Every runner that both have.

    Args:
        baseline: The older result.
        result: The new one.
        allowed: By what share of the time a runner may have become slower.

    Raises:
        KanoclipError: They have none in common.
    """
    changes = []
    for name, runner in result["runners"].items():
        older = baseline["runners"].get(name)
        if older is not None:
            ratio = ratio_of_runs(runner["rounds_ms"], older["rounds_ms"])
            changes.append(Change(name, ratio, ratio.low > 1 + allowed))
    if not changes:
        theirs = ", ".join(baseline["runners"])
        raise KanoclipError(f"the baseline has none of what was measured here: it has {theirs}")
    return changes


def peak_ratios(baseline: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, float]:
    """This machine's products now over then, by device and precision: the machine itself may have changed its speed."""
    found = {}
    for device, peaks in result["peaks"]["gemm_gflops"].items():
        for precision, peak in peaks.items():
            older = baseline.get("peaks", {}).get("gemm_gflops", {}).get(device, {}).get(precision)
            if older:
                found[f"{device} {precision}"] = peak["value"] / older["value"]
    return found
