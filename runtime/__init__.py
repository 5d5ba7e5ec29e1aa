"""The lean runtime: frame -> preprocess -> backend -> decision -> sinks. Never imports torch, onnx or open_clip."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kanoclip.runtime.detect.detector import Detector
    from kanoclip.runtime.errors import KanoclipError
    from kanoclip.runtime.stream.stream import Stream
    from kanoclip.runtime.types import Detection, Frame, Region

__all__ = ["Detection", "Detector", "Frame", "KanoclipError", "Region", "Stream"]

_MODULES = {
    "Detection": "types",
    "Detector": "detect.detector",
    "Frame": "types",
    "KanoclipError": "errors",
    "Region": "types",
    "Stream": "stream.stream",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for.

    A detector needs no source and no sink, and `kanoclip --version` and a shell's completion need neither numpy nor
    OpenCV, which are most of a start's time.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
