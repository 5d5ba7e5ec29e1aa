"""The lean runtime: frame -> preprocess -> backend -> decision -> sinks. Never imports torch, onnx or open_clip."""

from __future__ import annotations

from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.types import Detection, Region

__all__ = ["Detection", "Detector", "KanoclipError", "Region"]
