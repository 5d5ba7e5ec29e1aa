"""The annotated image: heat map, region of interest, regions and a caption bar."""

from __future__ import annotations

import cv2
import numpy as np

from kanoclip.runtime.sinks.draw.digits import apart
from kanoclip.runtime.sinks.draw.heat_map import Canvas, array_of, paint_heat_map
from kanoclip.runtime.types import Detection, Image, RegionOfInterest

MIN_WIDTH = 192
"""Narrower images are enlarged by a whole factor so that the caption can be read."""

_RED = (48, 48, 230)
_GREEN = (88, 170, 60)
_YELLOW = (60, 210, 250)
_CYAN = (220, 200, 40)
_WHITE = (255, 255, 255)
_GREY = (170, 170, 170)
_BAR = (32, 28, 26)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotate(image: Image, detection: Detection, *, untrained: bool, canvas: Canvas | None = None) -> Image:
    """Draws a detection over its frame, below a caption bar.

    Args:
        image: The original frame, uint8 [H, W, 3] BGR; left as it is.
        detection: The detector's result for it.
        untrained: The bundle has seeded weights: the caption says so.
        canvas: Memory that the image lies in until the next one is drawn there; None takes new.

    Returns:
        uint8 [k*H + bar, k*W, 3]; k is 1 unless the frame is narrower than `MIN_WIDTH`. Its size depends only on the
        frame's size.
    """
    width = image.shape[1]
    factor = -(-MIN_WIDTH // width) if width < MIN_WIDTH else 1
    if factor > 1:
        image = np.repeat(np.repeat(image, factor, axis=0), factor, axis=1)
    bar = _caption(image.shape[1], detection, untrained=untrained)
    annotated = array_of(canvas, "annotated", (bar.shape[0] + image.shape[0], image.shape[1], 3))
    annotated[: bar.shape[0]] = bar
    area = annotated[bar.shape[0] :]
    area[...] = image
    paint_heat_map(area, detection.map, detection.pixel_threshold, canvas)
    if detection.roi is not None:
        _draw_roi(area, detection.roi)
    _draw_regions(area, detection, factor)
    return annotated


def _draw_roi(image: Image, roi: RegionOfInterest) -> None:
    """Draws the outlines of the parts that are scored, and more faintly of those that are ignored."""
    height, width = image.shape[:2]
    thin = max(1, round(min(height, width) / 540))
    inside, ignored = roi.outlines(height, width)
    for outlines, colour in ((ignored, _GREY), (inside, _CYAN)):
        cv2.polylines(image, outlines, True, (0, 0, 0), thin + 2, cv2.LINE_AA)
        cv2.polylines(image, outlines, True, colour, thin, cv2.LINE_AA)


def _draw_regions(image: Image, detection: Detection, factor: int) -> None:
    """Draws each region's box; the best one also gets its score."""
    height, width = image.shape[:2]
    thin = max(1, round(min(height, width) / 360))
    for rank, region in enumerate(detection.regions):
        x0, y0 = region.x * factor, region.y * factor
        x1, y1 = (region.x + region.width) * factor - 1, (region.y + region.height) * factor - 1
        cv2.rectangle(image, (x0, y0), (x1, y1), (0, 0, 0), thin + 2 * max(1, thin // 2))
        cv2.rectangle(image, (x0, y0), (x1, y1), _WHITE, thin)
        if rank < 5 and width >= 400:
            scale = max(0.4, min(height, width) / 1400)
            text = apart(region.score, detection.pixel_threshold)[0]
            (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, 1)
            at = (
                min(x0, width - text_width),
                y0 - 2 * thin - 2 if y0 > 2 * text_height else y1 + text_height + 4 * thin,
            )
            cv2.putText(image, text, at, _FONT, scale, (0, 0, 0), 2 + 2 * thin, cv2.LINE_AA)
            cv2.putText(image, text, at, _FONT, scale, _WHITE, max(1, thin), cv2.LINE_AA)


def _caption(width: int, detection: Detection, *, untrained: bool) -> Image:
    """The bar above the image: verdict of the frame, score, threshold, class; its edge is red during an alarm.

    Two lines when narrow, one when wide. Height depends on the width alone, so that all frames of a video agree.
    """
    scale = min(max(width / 1100, 0.42), 1.5)
    thick = 1 if scale < 0.7 else 2
    line = round(34 * scale)
    pad = round(12 * scale)
    narrow = width < 560
    rows = line * (2 if narrow else 1) + pad
    bar = np.full((rows + rows % 2, width, 3), _BAR, np.uint8)  # even, for with a frame of even size so is the video
    colour = _RED if detection.is_anomalous else _GREEN
    alarm = detection.is_anomalous if detection.alarm is None else detection.alarm
    edge = max(4, round(8 * scale))
    bar[:, :edge] = _RED if alarm else _GREEN
    baseline = pad // 2 + round(line * 0.72)
    x = edge + pad
    verdict = "ANOMALY" if detection.is_anomalous else "normal"
    x = _put(bar, verdict, (x, baseline), scale, colour if not detection.is_anomalous else (120, 120, 255), thick)
    sign = ">=" if detection.is_anomalous else "<"
    score, threshold = apart(detection.score, detection.threshold)
    x = _put(bar, score, (x + pad, baseline), scale, _WHITE, thick)
    x = _put(bar, f"{sign} {threshold}", (x + pad, baseline), scale * 0.85, _GREY, 1)
    if narrow:
        x, baseline = edge + pad, baseline + line
        right = width - pad
    else:
        x += 2 * pad
        right = width - pad
    if alarm != detection.is_anomalous:  # held from frames before, or not raised yet
        x = pad + _put(bar, "ALARM" if alarm else "no alarm", (x, baseline), scale * 0.85, _YELLOW, thick)
    if untrained:
        text_width = cv2.getTextSize("UNTRAINED", _FONT, scale * 0.85, thick)[0][0]
        right -= text_width
        _put(bar, "UNTRAINED", (right, baseline), scale * 0.85, _YELLOW, thick)
        right -= pad
    _put(bar, _fit(detection.class_name, right - x, scale * 0.85), (x, baseline), scale * 0.85, _GREY, 1)
    return bar


def _put(bar: Image, text: str, at: tuple[int, int], scale: float, colour: tuple[int, int, int], thick: int) -> int:
    """Writes text; returns the x at which it ends."""
    cv2.putText(bar, text, at, _FONT, scale, colour, thick, cv2.LINE_AA)
    return at[0] + int(cv2.getTextSize(text, _FONT, scale, thick)[0][0])


def _fit(text: str, width: int, scale: float) -> str:
    """Cuts text to a width in pixels; what OpenCV's fonts cannot draw becomes `?`."""
    shown = "".join(c if 32 <= ord(c) < 127 else "?" for c in text)
    while shown and cv2.getTextSize(shown, _FONT, scale, 1)[0][0] > width:
        shown = shown[:-3] + ".." if len(shown) > 3 and shown.endswith("..") else shown[:-2] + ".."
        if shown == "..":
            return ""
    return shown
