"""Metrics of anomaly detection: one implementation for training, evaluation and the parity gate.

Exact: no thresholds are sampled and no scores are binned. `ranking` has the metrics of one score an image and the
sums that all of them share, `pixels` those of maps; behind these are `runs`, sorted pixels in memory or on disk, and
`slices`, which goes through them.
"""

from kanoclip.runtime.metrics.pixels import (
    PixelAccumulator,
    PixelMetrics,
    aupro,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1_max,
)
from kanoclip.runtime.metrics.ranking import average_precision, f1_max, image_auroc

__all__ = [
    "PixelAccumulator",
    "PixelMetrics",
    "aupro",
    "average_precision",
    "f1_max",
    "image_auroc",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_f1_max",
]
