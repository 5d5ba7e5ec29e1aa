"""One benchmark from first to last piece."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kanoclip.benchmarks.bench.comparison.bootstrap import ratio_in_turns
from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.machine.clocks import about, read_clocks
from kanoclip.benchmarks.bench.machine.energy import measure_energy
from kanoclip.benchmarks.bench.machine.quiet import Watch
from kanoclip.benchmarks.bench.machine.roofline import Peaks, floor, work_of
from kanoclip.benchmarks.bench.runners.gpu import measure_gpu
from kanoclip.benchmarks.bench.runners.runners import Runner, first_batch, open_runners, tiles_title
from kanoclip.benchmarks.bench.stages import VIDEO_FRAMES, measure_stages, measure_streams
from kanoclip.benchmarks.bench.start import IMAGES, measure_start
from kanoclip.benchmarks.bench.turns import Tick, batch_sizes, drift, measure_batches, measure_latency, percentiles
from kanoclip.benchmarks.studies.streams.first_look import write_video
from kanoclip.benchmarks.studies.streams.run_overhead import example_photographs
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import GraphWork
from kanoclip.runtime.engines import Report
from kanoclip.runtime.engines.tensorrt.backend import TensorRtBackend

FORMAT, VERSION = "kanoclip-bench", 1
VIDEO_SIZE = (1920, 1080)
REPEAT = 3
"""Streams, starts and energy blocks of each runner."""


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        names: Runners as `open_runners` takes them; the first is what the user requested.
        reference: The name whose time the others' is divided by.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of the engines, None for all cores.
        rounds: Of the latency; stages and batches take a part of them.
        warmup: Runs before them; on a GPU for half a second at least, unless it is 0.
        stream_s: Seconds that each stream lasts.
        parts: Of latency, gpu, stages, batches, stream, start, energy and roofline; latency is always measured.
    """

    names: tuple[str, ...]
    reference: str
    device: str
    threads: int | None
    rounds: int
    warmup: int
    stream_s: float
    parts: tuple[str, ...]

    @property
    def few(self) -> int:
        """Rounds of what is measured beside the latency."""
        return min(self.rounds, max(self.rounds // 4, 5))


def run_of(bundle: Bundle, settings: Settings, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of `--resume` belongs to."""
    reported = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    machine = {name: value for name, value in environment.items() if name not in ("date", "memory_gb")}
    return {"bundle": bundle.graph_digest(), "tiles": tiles_title(bundle), "settings": reported, **machine}


def measure(
    bundle: Bundle, settings: Settings, journal: Journal, environment: dict[str, Any], report: Report, tick: Tick
) -> dict[str, Any]:
    """Measures everything that is asked for.

    Args:
        bundle: What to run.
        settings: By what, how often.
        journal: Keeps every piece.
        environment: Of `whole_environment`.
        report: Called with the progress of an engine's build.
        tick: Called after each piece with the part that it belongs to.

    Returns:
        Everything, as JSON values; docs/benchmarking.md has the fields.

    Raises:
        KanoclipError: What the user requested does not run here.
    """
    tick("loading")
    runners, left_out = open_runners(bundle, settings.names, settings.device, settings.threads, report)
    try:
        result = _measure(bundle, settings, journal, environment, tick, runners, left_out)
    finally:
        for runner in runners:
            runner.backend.close()
    reported: dict[str, Any] = json.loads(json.dumps(result, allow_nan=False))  # as whoever reads the file will have it
    return reported


def _measure(
    bundle: Bundle,
    settings: Settings,
    journal: Journal,
    environment: dict[str, Any],
    tick: Tick,
    runners: Sequence[Runner],
    left_out: dict[str, str],
) -> dict[str, Any]:
    watch, batch, parts = Watch(), first_batch(bundle), settings.parts
    peaks = Peaks(runners, journal)
    if "roofline" in parts:
        peaks.measure(tick)
    gpu = next((one.backend.device_info for one in runners if isinstance(one.backend, TensorRtBackend)), None)
    idle = None if gpu is None else read_clocks(gpu.pci)
    latency = measure_latency(bundle, runners, batch, settings.rounds, settings.warmup, journal, tick)
    busy = None if gpu is None else read_clocks(gpu.pci)
    medians = {name: float(np.median(times)) for name, times in latency.items()}
    found: dict[str, dict[str, Any]] = {
        runner.name: {
            "asked": runner.requested,
            "device": runner.device,
            "rounds_ms": latency[runner.name],
            **percentiles(latency[runner.name]),
            "fps": batch * 1e3 / medians[runner.name],
        }
        for runner in runners
    }
    _add(found, "drift", drift(bundle, runners, batch))
    reference = next((runner.name for runner in runners if runner.requested == settings.reference), runners[0].name)
    for name, times in latency.items():
        found[name]["ratio"] = asdict(ratio_in_turns(times, latency[reference]))
    if "gpu" in parts:
        _add(found, "gpu_ms", measure_gpu(bundle, runners, settings.rounds, journal, tick))
    with tempfile.TemporaryDirectory(prefix="kanoclip-bench-") as scratch:
        video, folder = Path(scratch) / "camera.mp4", Path(scratch) / "pictures"
        if "stages" in parts or "stream" in parts:
            write_video(video, VIDEO_FRAMES, VIDEO_SIZE)
        if "stages" in parts:
            _add(found, "stages_ms", measure_stages(bundle, runners, video, settings.few, journal, tick))
        if "batches" in parts:
            _add(found, "batches_fps", measure_batches(bundle, runners, settings.few, journal, tick))
        if "stream" in parts:
            streams = measure_streams(
                bundle, runners, video, settings.stream_s, REPEAT, settings.threads, journal, tick
            )
            _add(found, "stream", streams)
        if "start" in parts:
            images = _image_files(folder)
            _add(found, "start", measure_start(bundle, runners, images, REPEAT, settings.threads, journal, tick))
    if "energy" in parts:
        _add(found, "energy", measure_energy(bundle, runners, batch, REPEAT, journal, tick))
    work, reason = work_of(bundle)
    if "roofline" in parts:
        peaks.measure(tick)
        if work is not None:
            _add(found, "roofline", _shares(work, batch, runners, found, peaks))
    clocks = None if gpu is None else about(idle, busy, read_clocks(gpu.pci))
    noise = watch.noise(latency)
    return {
        "format": FORMAT,
        "version": VERSION,
        "environment": environment,
        "bundle": _about(bundle, work),
        "settings": {
            **asdict(settings),
            "batch": batch,
            "batches": batch_sizes(bundle),
            "tiles": tiles_title(bundle),
            "reference": reference,
            "pieces_of_an_earlier_run": journal.known,
        },
        "quiet": {"quiet": noise.quiet, **asdict(noise)},
        "clocks": clocks,
        "peaks": {
            "gemm_gflops": {d: {p: asdict(peak) for p, peak in by.items()} for d, by in peaks.gemm.items()},
            "copy_gb_s": {device: asdict(peak) for device, peak in peaks.copy.items()},
            "gemm_ways": peaks.ways,
            "why_no_roofline": None if work is not None else reason,
        },
        "runners": found,
        "left_out": left_out,
    }


def _add(found: dict[str, dict[str, Any]], key: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        found[name][key] = value


def _shares(
    work: GraphWork, batch: int, runners: Sequence[Runner], found: Mapping[str, Mapping[str, Any]], peaks: Peaks
) -> dict[str, dict[str, Any]]:
    """How near each runner comes to the least time: one run after the other, and at its best rate of frames."""
    reported: dict[str, dict[str, Any]] = {}
    for runner in runners:
        copy = peaks.copy.get(runner.device)
        least = floor(work, batch, peaks.gemm.get(runner.device, {}), copy, runner.precisions)
        if least is None:
            continue
        figures = found[runner.name]
        rates = [*figures.get("batches_fps", {}).values(), *(s["fps"] for s in figures.get("stream", {}).values())]
        best = max([figures["fps"], *rates])
        reported[runner.name] = {
            **asdict(least),
            "share": least.milliseconds / figures["p50_ms"],
            "best_fps": best,
            "share_at_best_fps": work.gemm_flops * best / least.peak / 1e9,
            "gflops": work.gemm_flops * batch / figures["p50_ms"] / 1e6,
            "flops_per_byte": work.gemm_flops * batch / (work.weight_bytes + work.frame_bytes * batch),
        }
    return reported


def _about(bundle: Bundle, work: GraphWork | None) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "path": str(bundle.root),
        "graph": bundle.graph_digest(),
        "backbone": manifest.model.backbone,
        "precision": manifest.precision,
        "image_size": list(manifest.model.image_size),
        "classes": len(manifest.classes),
        "max_batch": manifest.max_batch,
        "dynamic_batch": manifest.dynamic_batch,
        "work": None if work is None else asdict(work),
    }


def _image_files(folder: Path) -> list[Path]:
    """Fills a folder with some of the photographs, as large as the video."""
    folder.mkdir()
    images = []
    for path in example_photographs()[:IMAGES]:
        images.append(folder / path.name)
        large = cv2.resize(cv2.imread(str(path)), VIDEO_SIZE, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(images[-1]), large)
    return images
