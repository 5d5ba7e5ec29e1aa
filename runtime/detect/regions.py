"""From an anomaly map to regions in the original image, and what a region of interest leaves of map and score."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.types import FloatMap, Mask, Region

MANY = 64
"""From so many regions on, one pass over all pixels is cheaper than one over each region's box."""


def within(anomaly_map: FloatMap, score: float, mask: Mask, peak_weight: float = 0.5) -> tuple[FloatMap, float]:
    """What map and score would be if only a part of the map counted.

    The graph's score is (g + max M) / 2 (eq. 12, halved), so the largest value that counts takes the place of max M
    exactly. g, which the graph has from the whole image, stays: what lies outside still counts that much. With a
    reference memory the score is max M alone.

    Args:
        anomaly_map: float32 [h, w] in [0, 1]; left as it is.
        score: Of the whole image, in [0, 1].
        mask: bool [h, w], True where the map counts; somewhere it must.
        peak_weight: What max M counts in the score.

    Returns:
        A new map, 0 where it does not count, and the score, in [0, 1] and at most the one of the whole image.
    """
    inside = np.where(mask, anomaly_map, np.float32(0))
    lost = float(anomaly_map.max()) - float(inside.max())
    return inside, min(max(score - peak_weight * lost, 0.0), 1.0)


def find_regions(
    anomaly_map: FloatMap,
    pixel_threshold: float,
    min_area: int,
    frame_height: int,
    frame_width: int,
    where: Mask | None = None,
) -> tuple[Region, ...]:
    """Connected areas of the map at or above a threshold, in pixels of the original frame.

    Args:
        anomaly_map: float32 [h, w] in [0, 1], of any size.
        pixel_threshold: Map value from which a pixel counts, in [0, 1].
        min_area: Smallest region that is reported, in original pixels.
        frame_height: Rows of the original frame.
        frame_width: Columns of the original frame.
        where: bool [h, w], True where the map counts; None for all of it.

    Returns:
        Regions (8-connected), largest score first; a box covers every original pixel that its map pixels touch.
    """
    hot = anomaly_map >= pixel_threshold
    mask = (hot if where is None else hot & where).view(np.uint8)
    if not mask.any():
        return ()
    labels, stats, corner = _label(mask)
    height, width = labels.shape
    box = np.s_[corner[1] : corner[1] + height, corner[0] : corner[0] + width]
    peaks = _peaks(anomaly_map[box], labels, stats)
    found = (
        _region(stats[label], peaks[label], corner, anomaly_map.shape, (frame_height, frame_width))
        for label in range(1, len(stats))
    )
    regions = [region for region in found if region.area >= min_area]
    return tuple(sorted(regions, key=lambda region: (-region.score, region.y, region.x)))


def peak_region(anomaly_map: FloatMap, frame_height: int, frame_width: int, where: Mask | None = None) -> Region:
    """The area around the map's largest value: the region of an anomalous image in which no other is left.

    It is connected with that value and holds what is at or above the midpoint between it and the map's median, which
    stands for the part that is normal. So its size is that of the peak, however low the map is as a whole: a narrow
    peak gives a narrow box, and a map of one value the whole of it.

    Args:
        anomaly_map: float32 [h, w] in [0, 1], of any size.
        frame_height: Rows of the original frame.
        frame_width: Columns of the original frame.
        where: bool [h, w], True where the map counts, which somewhere it must; None for all of it.

    Returns:
        The region (8-connected). No smallest area holds for it. Of several equal largest values it has the first, row
        by row.
    """
    values = anomaly_map if where is None else anomaly_map[where]
    peak = float(values.max())
    # The median is at most the peak, so their midpoint is too, and at least the peak itself reaches it.
    hot = anomaly_map >= (peak + float(np.median(values))) / 2
    first = np.argmax(anomaly_map if where is None else np.where(where, anomaly_map, np.float32(-1)))
    row, column = divmod(int(first), anomaly_map.shape[1])
    labels, stats, (left, top) = _label((hot if where is None else hot & where).view(np.uint8))
    label = labels[row - top, column - left]
    return _region(stats[label], peak, (left, top), anomaly_map.shape, (frame_height, frame_width))


def _label(mask: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], tuple[int, int]]:
    """Labels of connected areas, OpenCV's statistics of each, and the (x, y) of the box that the labels are of."""
    # Labelling costs 0.5 ms for a whole map of 256x256, hot or not; most of the time little of it is hot.
    x, y, width, height = cv2.boundingRect(mask)
    box = mask[y : y + height, x : x + width]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(box, connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(labels, np.int32), np.asarray(stats, np.int32), (x, y)


def _region(
    stats: npt.NDArray[np.int32],
    score: float,
    corner: tuple[int, int],
    map_size: tuple[int, ...],
    frame_size: tuple[int, int],
) -> Region:
    """One area of the map in pixels of the original frame.

    Args:
        stats: OpenCV's statistics of the area.
        score: Its largest map value.
        corner: (x, y) on the map from which its statistics are counted.
        map_size: (h, w).
        frame_size: (height, width) of the original frame.
    """
    (height, width), (frame_height, frame_width) = map_size, frame_size
    frame_pixels, map_pixels = frame_height * frame_width, height * width
    # Rounded in whole numbers: a half in floating point goes up or down by the map's size.
    area = max((2 * int(stats[cv2.CC_STAT_AREA]) * frame_pixels + map_pixels) // (2 * map_pixels), 1)
    left, top = corner[0] + int(stats[cv2.CC_STAT_LEFT]), corner[1] + int(stats[cv2.CC_STAT_TOP])
    right, bottom = left + int(stats[cv2.CC_STAT_WIDTH]), top + int(stats[cv2.CC_STAT_HEIGHT])
    x, y = left * frame_width // width, top * frame_height // height
    # -(-a // b) rounds up, so a thin region of a much smaller frame still has a pixel.
    x_end, y_end = -(-right * frame_width // width), -(-bottom * frame_height // height)
    return Region(x, y, x_end - x, y_end - y, score, area)


def _peaks(anomaly_map: FloatMap, labels: npt.NDArray[np.int32], stats: npt.NDArray[np.int32]) -> list[float]:
    """Largest map value of each label, 0 for the background."""
    if len(stats) > MANY:
        peaks = np.zeros(len(stats), np.float32)
        above = np.flatnonzero(labels)
        np.maximum.at(peaks, labels.ravel()[above], anomaly_map.ravel()[above])
        return [float(peak) for peak in peaks]
    found = [0.0]
    for label in range(1, len(stats)):
        left, top, width, height, _ = (int(value) for value in stats[label])
        box = np.s_[top : top + height, left : left + width]
        found.append(float(anomaly_map[box].max(where=labels[box] == label, initial=0.0)))
    return found
