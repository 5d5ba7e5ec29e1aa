"""The lean runtime: frame -> preprocess -> backend -> decision -> sinks. Never imports torch, onnx or open_clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.types import Detection, Frame, Region

if TYPE_CHECKING:
    from kanoclip.runtime.stream.stream import Stream

__all__ = ["Detection", "Detector", "Frame", "KanoclipError", "Region", "Stream"]


def __getattr__(name: str) -> Any:
    """Imports `Stream` when it is first asked for: all sources and sinks come with it, and a detector needs none."""
    if name == "Stream":
        from kanoclip.runtime.stream.stream import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
