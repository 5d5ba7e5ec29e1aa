"""Metrics of anomaly maps against masks, exact and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics.ranking import (
    Bools,
    Counts,
    Doubles,
    Floats,
    RankingSums,
    as_bools,
    running_sum,
)
from kanoclip.runtime.metrics.runs import Array, Run, Spool
from kanoclip.runtime.metrics.slices import merge, steps

Maps = npt.NDArray[Any] | Sequence[npt.ArrayLike]
"""[N, H, W], or N times [H, W] of differing sizes."""


@dataclass(frozen=True)
class PixelMetrics:
    """What the pixels of all maps together give; NaN where they hold no anomalous or no normal one.

    Attributes:
        auroc: Area under the ROC curve.
        average_precision: As scikit-learn has it.
        f1_max: The largest F1 of any threshold.
        aupro: Area under the curve of per-region overlap over false-positive rate, up to the limit, divided by it.
    """

    auroc: float
    average_precision: float
    f1_max: float
    aupro: float


class PixelAccumulator:
    """Takes map after map, then gives the metrics of all their pixels.

    Nothing is binned or approximated: the result is that of all pixels at once, the same to the bit in whatever order
    the maps come and however much of them went to disk. Pixels are sorted in portions as they come; `result` goes
    through all portions together from the largest score down, slice by slice. Beyond the limit the portions are put
    aside in the folder for temporary files (TMPDIR), 4 bytes a normal and at most 12 bytes an anomalous float32 pixel.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, max_fpr: float = 0.3, *, dtype: npt.DTypeLike = np.float32, memory: int = 512 << 20) -> None:
        """Starts empty.

        Args:
            max_fpr: False-positive rate up to which AUPRO integrates, in (0, 1].
            dtype: float32 or float64: what scores are stored and compared as.
            memory: Bytes of sorted pixels to hold before the disk is used. Sorting takes up to half as much
                besides (and never less than a map does).

        Raises:
            KanoclipError: `max_fpr` is out of range, or `dtype` another type.
        """
        if not 0 < max_fpr <= 1:
            raise KanoclipError(f"AUPRO up to a false-positive rate of {max_fpr}: choose one above 0 and up to 1")
        self._dtype = np.dtype(dtype)
        if self._dtype not in (np.float32, np.float64):
            raise KanoclipError(f"metrics of scores stored as {self._dtype}: choose float32 or float64")
        self._max_fpr = max_fpr
        self._portion = max(memory // 32 // self._dtype.itemsize, 1)
        # Coarse, so that the samples of many portions stay small. A slice then has at most a portion's rows, or with
        # more than 255 portions one 256th of that for each.
        self._stride = max(self._portion // 256, 1)
        self._spool = Spool(memory)
        self._closed = False
        self._negatives = self._positives = self._regions = 0
        self._negative_runs: list[Run] = []
        self._positive_runs: list[Run] = []
        self._pending_negatives: list[Floats] = []
        self._pending_positives: list[tuple[Floats, npt.NDArray[np.uint32]]] = []
        self._negatives_pending = self._positives_pending = 0

    def __enter__(self) -> PixelAccumulator:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    @property
    def bytes_on_disk(self) -> int:
        """What was put aside so far."""
        return self._spool.bytes_on_disk

    def add(self, mask: npt.ArrayLike, anomaly_map: npt.ArrayLike) -> None:
        """Takes the pixels of one map; the arrays may be reused afterwards.

        Args:
            mask: True (or a positive whole number) for anomalous, [h, w].
            anomaly_map: Larger means more anomalous, [h, w], of a type that `dtype` holds without loss.

        Raises:
            KanoclipError: The shapes differ, a score is NaN, or the disk is full. After the last, nothing more can be
                added.
        """
        self._check_open()
        truth, scores = as_bools(mask, "masks"), np.asarray(anomaly_map)
        if truth.shape != scores.shape or truth.ndim != 2:
            raise KanoclipError(f"mask of {truth.shape} and map of {scores.shape}: pass two of one shape [H, W]")
        if not np.can_cast(scores.dtype, self._dtype, "safe"):
            raise KanoclipError(
                f"map of {scores.dtype} where scores are compared as {self._dtype}: convert it, or ask for float64"
            )
        if np.isnan(scores).any():
            raise KanoclipError("map that holds NaN cannot be ranked: find out which image gave it")
        # Normal images, which are most, need no look at each pixel.
        anomalous = bool(truth.any())
        negatives = scores[~truth] if anomalous else scores.flatten()
        self._pending_negatives.append(negatives.astype(self._dtype, copy=False))
        self._negatives_pending += len(negatives)
        if anomalous:
            sizes, regions = _region_sizes(truth)
            self._pending_positives.append((scores[truth].astype(self._dtype, copy=False), sizes))
            self._positives_pending += len(sizes)
            self._regions += regions
        if self._negatives_pending >= self._portion:
            self._sort_negatives()
        if self._positives_pending >= self._portion:
            self._sort_positives()

    def result(self) -> PixelMetrics:
        """The metrics of everything added so far; more may be added afterwards.

        Raises:
            KanoclipError: The disk is full or cannot be read.
        """
        self._check_open()
        if self._negatives_pending:
            self._sort_negatives()
        if self._positives_pending:
            self._sort_positives()
        if not self._negatives or not self._positives:
            return PixelMetrics(*[float("nan")] * 4)
        sums = RankingSums(self._positives, self._negatives)
        limit = self._max_fpr * self._negatives
        overlap = 0.0
        for step in steps(self._positive_runs, self._negative_runs, self._stride, self._portion):
            sums.add(step.counts, step.above, step.reached)
            overlap = running_sum(overlap, step.weights * _area(step.above, step.reached, limit))
        return PixelMetrics(sums.auroc, sums.average_precision, sums.f1_max, overlap / (self._regions * limit))

    def close(self) -> None:
        """Gives back memory and disk."""
        self._closed = True
        self._spool.close()
        self._negative_runs.clear()
        self._positive_runs.clear()
        self._pending_negatives.clear()
        self._pending_positives.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise KanoclipError("metrics were asked of pixels that are gone: make a new PixelAccumulator")

    def _sort_negatives(self) -> None:
        values = np.concatenate(self._pending_negatives)
        self._pending_negatives.clear()
        self._negatives_pending = 0
        values.sort()
        self._negatives += len(values)
        self._negative_runs.append(self._store(values))

    def _sort_positives(self) -> None:
        values = np.concatenate([values for values, _ in self._pending_positives])
        sizes = np.concatenate([sizes for _, sizes in self._pending_positives])
        self._pending_positives.clear()
        self._positives_pending = 0
        self._positives += len(values)
        values, sizes, counts = merge(values, sizes, np.ones(len(values), np.uint32))
        self._positive_runs.append(self._store(values, sizes, counts.astype(np.uint32)))

    def _store(self, *columns: Array) -> Run:
        try:
            return Run(self._spool, self._stride, *columns)
        except KanoclipError:
            # A part is lost: whatever came out later would be wrong.
            self.close()
            raise


def aupro(masks: Maps, maps: Maps, max_fpr: float = 0.3) -> float:
    """Area under the per-region overlap curve, as MVTec's own evaluation has it.

    For every threshold, the overlap is the mean over all regions (8-connected areas of a mask) of all images of the
    share of the region at or above the threshold; the false-positive rate is that of all normal pixels. The curve
    between two thresholds is a straight line, its area ends at `max_fpr` and is divided by it.

    Args:
        masks: True (or a positive whole number) for anomalous, [N, H, W] or N times [h, w] of differing sizes.
        maps: Larger means more anomalous, of the same shapes. float16, float32 and small whole numbers are compared
            as float32, all others as float64.
        max_fpr: Where the area ends, in (0, 1].

    Returns:
        In [0, 1]; NaN when the masks hold no anomalous or no normal pixel.

    Raises:
        KanoclipError: Shapes or numbers differ, a score is NaN, `max_fpr` is out of range, a mask is no mask, or the
            disk is full.
    """
    return _measure(masks, maps, max_fpr).aupro


def pixel_auroc(masks: Maps, maps: Maps) -> float:
    """Area under the ROC curve of all pixels together; arguments, result and errors as in `aupro`."""
    return _measure(masks, maps).auroc


def pixel_average_precision(masks: Maps, maps: Maps) -> float:
    """Average precision of all pixels together; arguments, result and errors as in `aupro`."""
    return _measure(masks, maps).average_precision


def pixel_f1_max(masks: Maps, maps: Maps) -> float:
    """The largest F1 of any threshold over all pixels together; arguments, result and errors as in `aupro`."""
    return _measure(masks, maps).f1_max


def _measure(masks: Maps, maps: Maps, max_fpr: float = 1.0) -> PixelMetrics:
    truths, scores = [np.asarray(mask) for mask in masks], [np.asarray(anomaly_map) for anomaly_map in maps]
    if len(truths) != len(scores):
        raise KanoclipError(f"{len(truths)} masks and {len(scores)} maps: pass one mask a map")
    dtype = np.result_type(np.float32, *{array.dtype for array in scores})
    with PixelAccumulator(max_fpr, dtype=dtype) as pixels:
        for truth, score in zip(truths, scores, strict=True):
            pixels.add(truth, score)
        return pixels.result()


def _region_sizes(mask: Bools) -> tuple[npt.NDArray[np.uint32], int]:
    """For each anomalous pixel of a mask, in reading order, the size of its region; and the number of regions."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    areas = np.asarray(stats)[:, cv2.CC_STAT_AREA].astype(np.uint32)
    return areas[np.asarray(labels)[mask]], count - 1


def _area(above: Counts, reached: Counts, limit: float) -> Doubles:
    """Area that one pixel adds below the curve, where the x axis counts normal pixels and ends at `limit`.

    The curve rises by the pixel's weight in a straight line from x = above to x = reached.
    """
    start, end = np.minimum(above, limit), np.minimum(reached, limit)
    slope = (end - start) ** 2 / (2 * np.maximum(reached - above, 1))
    area: Doubles = limit - end + slope
    return area
