"""The least time a bundle's graph takes on this machine: its operations at the measured peak, its bytes likewise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.machine.peak import Peak, gemm_ways, measure_copy, measure_gemm
from kanoclip.benchmarks.bench.runners.runners import Runner
from kanoclip.benchmarks.bench.turns import Tick
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import GraphWork
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.system.installed import is_installed

AGAIN = 2
"""So many of the best ways are measured again at the end."""


@dataclass(frozen=True)
class Floor:
    """The least time of one run.

    Attributes:
        milliseconds: For the whole batch.
        bound_by: `products` or `memory`: which of the two takes it.
        peak: The products' peak that was used, GFLOP/s.
        by: What reached that peak.
    """

    milliseconds: float
    bound_by: str
    peak: float
    by: str


def work_of(bundle: Bundle) -> tuple[GraphWork | None, str]:
    """What the bundle's graph has to do for a frame, all its tiles; or None, and what to do about it."""
    work, reason = _graph_work(bundle)
    tiles = bundle.manifest.tiles
    if work is None or tiles is None:
        return work, reason
    runs = -(-tiles.count // bundle.manifest.max_batch)
    return GraphWork(work.gemm_flops * tiles.count, work.weight_bytes * runs, work.frame_bytes * tiles.count), reason


def _graph_work(bundle: Bundle) -> tuple[GraphWork | None, str]:
    """That for an image of the model's size, from the manifest or counted here."""
    if bundle.manifest.work is not None:
        return bundle.manifest.work, ""
    if not is_installed("onnx"):
        return None, "this bundle was exported without a count of its work: pip install onnx, or export it again"
    try:
        from kanoclip.export.work import count_work
    except ImportError as error:
        return None, f"this bundle's work cannot be counted ({error}): pip install onnx, or export it again"
    try:
        return count_work(bundle.model_path, bundle.manifest.max_batch), ""
    except KanoclipError as error:
        return None, str(error)


def floor(
    work: GraphWork, batch: int, gemm: Mapping[str, Peak], copy: Peak | None, precisions: Sequence[str]
) -> Floor | None:
    """The least time of a run, or None where no peak for it was measured.

    The bytes are those that must move at least: weights once, inputs and outputs. What lies between may stay in caches.

    Args:
        work: What the graph has to do.
        batch: Frames in the run.
        gemm: The products' peaks by precision.
        copy: Of the memory, None when it was not measured.
        precisions: What the products may be computed in: the fastest counts.
    """
    known = [gemm[one] for one in precisions if one in gemm]
    if not known:
        return None
    best = max(known, key=lambda peak: peak.value)
    products = work.gemm_flops * batch / best.value / 1e6
    memory = (work.weight_bytes + work.frame_bytes * batch) / copy.value / 1e6 if copy is not None else 0.0
    return Floor(max(products, memory), "products" if products >= memory else "memory", best.value, best.by)


class Peaks:
    """This machine's peaks on each device, the best of all ways and of all times that they were measured.

    Attributes:
        gemm: By device, then by precision.
        copy: By device.
        ways: Every figure, by device, precision and way: GFLOP/s, or why there is none.
    """

    def __init__(self, runners: Sequence[Runner], journal: Journal) -> None:
        self._runners, self._journal, self._round = runners, journal, 0
        self.gemm: dict[str, dict[str, Peak]] = {}
        self.copy: dict[str, Peak] = {}
        self.ways: dict[str, dict[str, dict[str, float | str]]] = {}

    def measure(self, tick: Tick) -> None:
        """Measures all ways; called again, the best of them: the first time may have been disturbed."""
        for device in sorted({runner.device for runner in self._runners}):
            here = [runner for runner in self._runners if runner.device == device]
            for precision in sorted({one for runner in here for one in runner.precisions}):
                engines = [runner.engine for runner in here if not runner.is_torch]
                for way in self._ways(precision, device, engines):
                    self._one(device, precision, way)
                    tick("peak")
            piece = f"copy/{self._round}/{device}"
            reported = self._journal.once(piece, lambda: _attempt(lambda: measure_copy(device)))  # noqa: B023
            if "value" in reported:
                best = self.copy.get(device)
                self.copy[device] = max(filter(None, (best, Peak(**reported))), key=lambda peak: peak.value)
            tick("peak")
        self._round += 1

    def _ways(self, precision: str, device: str, engines: Sequence[str]) -> list[str]:
        if self._round == 0:
            return gemm_ways(precision, device, engines)
        ways = self.ways.get(device, {}).get(precision, {})
        rates = {way: rate for way, rate in ways.items() if isinstance(rate, float)}
        return sorted(rates, key=lambda way: rates[way], reverse=True)[:AGAIN]

    def _one(self, device: str, precision: str, way: str) -> None:
        piece = f"peak/{self._round}/{device}/{precision}/{way}"
        reported = self._journal.once(piece, lambda: _attempt(lambda: measure_gemm(way, device, precision)))
        ways = self.ways.setdefault(device, {}).setdefault(precision, {})
        if "value" not in reported:
            ways.setdefault(way, reported["error"])
            return
        before = ways.get(way)
        ways[way] = max(reported["value"], before if isinstance(before, float) else 0.0)
        best = self.gemm.setdefault(device, {})
        if precision not in best or reported["value"] > best[precision].value:
            best[precision] = Peak(**reported)


def _attempt(measure: Any) -> dict[str, Any]:
    try:
        return asdict(measure())
    except KanoclipError as error:
        return {"error": str(error)}
