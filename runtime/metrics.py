"""Metrics of anomaly detection, exact: one implementation for training, evaluation, parity and the runtime.

A metric that compares anomalous with normal pixels needs, for each value that an anomalous pixel has, only the number
of normal pixels above it and at it. So the anomalous values are kept (they are few) and the normal ones, sorted in
chunks, are asked for those ranks; chunks that do not fit into memory wait in an unnamed temporary file. Nothing is
binned.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import KanoclipError

MaskLike = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_CHUNK = 1 << 22
"""Values sorted at once: 16 MiB of float32."""


@dataclass(frozen=True, slots=True)
class PixelMetrics:
    """All pixel metrics, in [0, 1]; NaN where there are no anomalous pixels, or no normal ones.

    Attributes:
        auroc: Area under the ROC curve.
        average_precision: Precision averaged over the steps of recall (scikit-learn's).
        f1_max: Largest F1 over all thresholds.
        aupro: Area under the per-region-overlap curve up to a false-positive rate, normalised to [0, 1].
    """

    auroc: float
    average_precision: float
    f1_max: float
    aupro: float


@dataclass(frozen=True, slots=True)
class _Ranks:
    """Per distinct value of the anomalous ones, in falling order.

    Attributes:
        hits: Anomalous ones with this value.
        weights: The same, each counted with its weight; they sum to 1.
        above: Normal ones with a larger value.
        at: Normal ones with this very value.
        negatives: All normal ones.
    """

    hits: Doubles
    weights: Doubles
    above: Doubles
    at: Doubles
    negatives: int


def image_auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous one scores above a normal one, ties counted half.

    Args:
        labels: Not 0 for anomalous, any shape.
        scores: Larger means more anomalous, as many as labels.

    Returns:
        In [0, 1]; NaN when one of the two kinds is absent.

    Raises:
        KanoclipError: The lengths differ, or a score is NaN.
    """
    return _auroc(_label_ranks(labels, scores, "AUROC"))


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Sum over thresholds of precision times the step of recall, as scikit-learn has it; see `image_auroc`."""
    return _average_precision(_label_ranks(labels, scores, "average precision"))


def f1_max(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Largest F1 over all thresholds; see `image_auroc`."""
    return _f1_max(_label_ranks(labels, scores, "F1-max"))


def pixel_auroc(masks: Sequence[MaskLike] | MaskLike, maps: Sequence[Floats] | Floats) -> float:
    """AUROC over all pixels of all pictures.

    Args:
        masks: Not 0 for anomalous pixels, [N, H, W] or N arrays [H, W].
        maps: Of the same shapes.

    Returns:
        In [0, 1]; NaN without anomalous or without normal pixels.

    Raises:
        KanoclipError: Shapes differ, or a map holds NaN.
    """
    return _accumulated(masks, maps, 0.3).auroc


def pixel_average_precision(masks: Sequence[MaskLike] | MaskLike, maps: Sequence[Floats] | Floats) -> float:
    """Average precision over all pixels of all pictures; see `pixel_auroc`."""
    return _accumulated(masks, maps, 0.3).average_precision


def pixel_f1_max(masks: Sequence[MaskLike] | MaskLike, maps: Sequence[Floats] | Floats) -> float:
    """Largest F1 over all pixels of all pictures; see `pixel_auroc`."""
    return _accumulated(masks, maps, 0.3).f1_max


def aupro(masks: Sequence[MaskLike] | MaskLike, maps: Sequence[Floats] | Floats, max_fpr: float = 0.3) -> float:
    """Area under the per-region-overlap curve, as MVTec's own evaluation defines it.

    The overlap at a threshold is the mean, over all connected (8-neighbour) anomalous regions of all pictures, of the
    share of the region at or above it; it is drawn over the share of all normal pixels at or above it, integrated up to
    `max_fpr` and divided by it.

    Args:
        masks: As `pixel_auroc` takes them.
        maps: As `pixel_auroc` takes them.
        max_fpr: In (0, 1].

    Raises:
        KanoclipError: Shapes differ, a map holds NaN, or `max_fpr` is out of range.
    """
    return _accumulated(masks, maps, max_fpr).aupro


class PixelAccumulator:
    """Takes maps one by one and gives all pixel metrics at the end. A context manager: it may hold a temporary file.

    Maps are compared as float32, which is what the graph gives.
    """

    def __init__(self, max_fpr: float = 0.3, memory: int = 512 << 20) -> None:
        """Starts with no picture.

        Args:
            max_fpr: Of AUPRO, in (0, 1].
            memory: Bytes of normal pixels to hold in memory; what comes on top goes to a temporary file.

        Raises:
            KanoclipError: `max_fpr` is out of range.
        """
        if not 0 < max_fpr <= 1:
            raise KanoclipError(f"AUPRO up to a false-positive rate of {max_fpr}: give one above 0 and up to 1")
        self.max_fpr = max_fpr
        self._negatives = _Sorted(memory)
        self._values: list[Floats] = []
        self._region: list[Doubles] = []
        self._regions = 0

    def __enter__(self) -> PixelAccumulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._negatives.close()

    def add(self, mask: MaskLike, heat: npt.NDArray[np.floating[Any]]) -> None:
        """Adds a picture.

        Args:
            mask: Not 0 for anomalous pixels, [H, W].
            heat: Its map, [H, W]; larger means more anomalous.

        Raises:
            KanoclipError: Shapes differ, the map holds NaN, or the temporary file cannot be written.
        """
        wrong, heat32 = np.asarray(mask) != 0, np.asarray(heat, dtype=np.float32)
        if wrong.shape != heat32.shape or wrong.ndim != 2:
            raise KanoclipError(
                f"a mask of shape {wrong.shape} and a map of shape {heat32.shape}: give [H, W] for both"
            )
        if np.isnan(heat32).any():
            raise KanoclipError("a map holds NaN: find out which picture gave it")
        if not wrong.any():
            self._negatives.add(heat32.ravel())
            return
        count, regions = cv2.connectedComponents(wrong.astype(np.uint8), connectivity=8)
        self._regions += count - 1
        inside = regions[wrong]
        self._values.append(heat32[wrong])
        self._region.append(1.0 / np.bincount(inside, minlength=count)[inside])
        self._negatives.add(heat32[~wrong])

    def result(self) -> PixelMetrics:
        """The metrics of all pictures so far."""
        if not self._values or not self._negatives.count:
            return PixelMetrics(math.nan, math.nan, math.nan, math.nan)
        values, weights = np.concatenate(self._values), np.concatenate(self._region) / self._regions
        ranks = _ranks(values, weights, self._negatives)
        return PixelMetrics(_auroc(ranks), _average_precision(ranks), _f1_max(ranks), _aupro(ranks, self.max_fpr))


class _Sorted:
    """Values in sorted chunks, in memory up to a limit and in a temporary file beyond it."""

    def __init__(self, memory: int) -> None:
        self.count = 0
        self._memory = memory
        self._loose: list[npt.NDArray[Any]] = []
        self._loose_count = 0
        self._chunks: list[npt.NDArray[Any]] = []
        self._file: IO[bytes] | None = None
        self._sizes: list[int] = []

    def add(self, values: npt.NDArray[Any]) -> None:
        """Adds values; they are copied."""
        self.count += values.size
        # Zero has two signs, which compare equal but sort apart in some vectorised sorts.
        self._loose.append(values + values.dtype.type(0))
        self._loose_count += values.size
        if self._loose_count >= _CHUNK:
            self._seal()

    def chunks(self) -> Iterable[npt.NDArray[Any]]:
        """All chunks, each sorted upwards."""
        self._seal()
        yield from self._chunks
        if self._file is not None:
            self._file.seek(0)
            for size in self._sizes:
                yield np.fromfile(self._file, np.float32, size)

    def close(self) -> None:
        """Gives the temporary file back."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._chunks, self._loose = [], []

    def _seal(self) -> None:
        if not self._loose:
            return
        chunk = np.concatenate(self._loose)
        self._loose, self._loose_count = [], 0
        chunk.sort()
        if sum(one.nbytes for one in self._chunks) + chunk.nbytes <= self._memory:
            self._chunks.append(chunk)
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="kanoclip-")  # noqa: SIM115 (closed by `close`)
            self._file.seek(0, 2)
            self._file.write(chunk.tobytes())
            self._sizes.append(chunk.size)
        except OSError as error:
            raise KanoclipError(
                f"cannot keep the maps' values in {tempfile.gettempdir()} ({error.strerror}): make room there, or "
                "point TMPDIR to a folder with more"
            ) from error


def _accumulated(masks: Sequence[MaskLike] | MaskLike, maps: Sequence[Floats] | Floats, max_fpr: float) -> PixelMetrics:
    if len(masks) != len(maps):
        raise KanoclipError(f"{len(masks)} masks and {len(maps)} maps: give one map a mask")
    with PixelAccumulator(max_fpr) as pixels:
        for mask, heat in zip(masks, maps, strict=True):
            pixels.add(np.asarray(mask), np.asarray(heat))
        return pixels.result()


def _label_ranks(labels: npt.ArrayLike, scores: npt.ArrayLike, name: str) -> _Ranks | None:
    """Ranks of labelled scores, in float64; None when a kind is absent."""
    wrong, values = np.asarray(labels).ravel() != 0, np.asarray(scores, dtype=np.float64).ravel()
    if wrong.shape != values.shape:
        raise KanoclipError(f"{name} of {wrong.size} labels and {values.size} scores: pass one score a label")
    if np.isnan(values).any():
        raise KanoclipError(f"{name} of scores that hold NaN: find out which picture gave it")
    positive = values[wrong]
    if positive.size in (0, values.size):
        return None
    negatives = _Sorted(values.nbytes)
    negatives.add(values[~wrong])
    return _ranks(positive, np.full(positive.size, 1 / positive.size), negatives)


def _ranks(values: npt.NDArray[Any], weights: Doubles, negatives: _Sorted) -> _Ranks:
    distinct, inverse, hits = np.unique(values + values.dtype.type(0), return_inverse=True, return_counts=True)
    summed = np.bincount(inverse, weights=weights, minlength=distinct.size).astype(np.float64, copy=False)
    below = np.zeros(distinct.size, np.int64)
    up_to = np.zeros(distinct.size, np.int64)
    for chunk in negatives.chunks():
        below += np.searchsorted(chunk, distinct, side="left")
        up_to += np.searchsorted(chunk, distinct, side="right")
    falling = slice(None, None, -1)
    return _Ranks(
        hits=hits[falling].astype(np.float64),
        weights=summed[falling],
        above=(negatives.count - up_to)[falling].astype(np.float64),
        at=(up_to - below)[falling].astype(np.float64),
        negatives=negatives.count,
    )


def _auroc(ranks: _Ranks | None) -> float:
    if ranks is None:
        return math.nan
    lost = float(ranks.hits @ (ranks.above + ranks.at / 2))
    return 1 - lost / (float(ranks.hits.sum()) * ranks.negatives)


def _average_precision(ranks: _Ranks | None) -> float:
    if ranks is None:
        return math.nan
    # Between two anomalous values recall does not move, so only their own thresholds count.
    caught = np.cumsum(ranks.hits)
    precision = caught / (caught + ranks.above + ranks.at)
    return float(ranks.hits @ precision) / float(caught[-1])


def _f1_max(ranks: _Ranks | None) -> float:
    if ranks is None:
        return math.nan
    # A threshold that only normal ones have takes in more of them and nothing else: F1 falls.
    caught = np.cumsum(ranks.hits)
    return float((2 * caught / (caught + ranks.above + ranks.at + caught[-1])).max())


def _aupro(ranks: _Ranks, max_fpr: float) -> float:
    # The curve goes flat from one anomalous value to the next, and slantwise where normal pixels tie with it.
    overlap = np.cumsum(ranks.weights)
    before = np.concatenate([[0.0], overlap[:-1]])
    left, right = ranks.above / ranks.negatives, (ranks.above + ranks.at) / ranks.negatives
    x = np.concatenate([[0.0], np.stack([left, right], axis=1).ravel(), [1.0]])
    y = np.concatenate([[0.0], np.stack([before, overlap], axis=1).ravel(), [1.0]])
    inside = x <= max_fpr
    last = int(np.nonzero(inside)[0][-1])
    area = float(np.diff(x[: last + 1]) @ (y[1 : last + 1] + y[:last])) / 2
    if x[last] < max_fpr:
        step = (max_fpr - x[last]) / (x[last + 1] - x[last])
        end = y[last] + step * (y[last + 1] - y[last])
        area += (max_fpr - x[last]) * (y[last] + end) / 2
    return float(area / max_fpr)
