"""From the graph's outputs for a frame to its detection: region of interest, tiles, thresholds, regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter, thread_time

from kanoclip.runtime.detect.graph import Output
from kanoclip.runtime.detect.preprocess import Prepared
from kanoclip.runtime.detect.regions import find_regions, peak_region, within
from kanoclip.runtime.detect.settings.thresholds import Limits
from kanoclip.runtime.detect.tiles import Tiling
from kanoclip.runtime.types import Detection, Mask, Timings


def decide(frame: Prepared, outputs: Sequence[Output], tiling: Tiling, class_name: str, limits: Limits) -> Detection:
    """Decides on a frame.

    Args:
        frame: What was scored.
        outputs: The graph's for its tiles, of which there is one where it is not cut.
        tiling: How it was cut.
        class_name: What it was scored for.
        limits: The class's thresholds, region of interest and memory.
    """
    started = perf_counter(), thread_time()
    thresholds = limits.thresholds
    if limits.mask is not None:
        outputs = _inside(outputs, tiling, limits.mask, limits.peak_weight)
    output = outputs[0] if len(outputs) == 1 else _stitched(outputs, tiling)
    anomaly_map, score = output.map, output.score
    regions = find_regions(anomaly_map, thresholds.pixel, thresholds.min_area, frame.height, frame.width, limits.mask)
    is_anomalous = score >= thresholds.image
    if is_anomalous and not regions:  # an anomaly always comes with a place to look at
        regions = (peak_region(anomaly_map, frame.height, frame.width, limits.mask),)
    wall, cpu = since(*started)
    return Detection(
        score=score,
        map=anomaly_map,
        is_anomalous=is_anomalous,
        threshold=thresholds.image,
        regions=regions,
        class_name=class_name,
        timings=Timings(frame.resize_ms, output.inference_ms, wall, frame.resize_cpu_ms, cpu),
        roi=limits.roi,
        pixel_threshold=thresholds.pixel,
    )


def decide_all(
    frames: Sequence[Prepared],
    runs: Iterable[Sequence[Output]],
    tiling: Tiling,
    class_name: str,
    limits: Limits,
) -> list[Detection]:
    """Decides on each frame once the outputs of all its tiles are there; `runs` has the graph's, run by run."""
    detections: list[Detection] = []
    outputs: list[Output] = []
    for run in runs:
        outputs += run
        while len(outputs) >= tiling.count:
            detections.append(decide(frames[len(detections)], outputs[: tiling.count], tiling, class_name, limits))
            del outputs[: tiling.count]
    return detections


def since(wall: float, cpu: float) -> tuple[float, float]:
    """Milliseconds of wall clock and of this thread's processor time since both clocks were read."""
    return (perf_counter() - wall) * 1e3, (thread_time() - cpu) * 1e3


def _inside(outputs: Sequence[Output], tiling: Tiling, mask: Mask, peak_weight: float) -> list[Output]:
    """What the region of interest leaves of each tile; one that lies outside of it has no say in the score."""
    left = []
    for output, part in zip(outputs, tiling.split(mask), strict=True):
        anomaly_map, score = within(output.map, output.score, part, peak_weight)
        left.append(Output(anomaly_map, score if part.any() else 0.0, output.inference_ms))
    return left


def _stitched(outputs: Sequence[Output], tiling: Tiling) -> Output:
    """A frame's output from those for its tiles: one map, the largest score, and all of the time."""
    anomaly_map = tiling.stitch([output.map for output in outputs])
    score = max(output.score for output in outputs)
    return Output(anomaly_map, score, sum(output.inference_ms for output in outputs))
