"""Writes a measurement together with what it was measured on."""

from __future__ import annotations

import json
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kanoclip.runtime.system.hardware import cpu_name, own_cores
from kanoclip.runtime.system.installed import installed_versions

PACKAGES = ("numpy", "opencv-python", "onnxruntime", "openvino", "torch", "onnx", "tensorrt-rtx")


def environment() -> dict[str, Any]:
    """The machine and the versions that a figure belongs to."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": own_cores(),
        "python": platform.python_version(),
        **installed_versions(PACKAGES),
    }


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Writes the figures with their environment as JSON."""
    path.write_text(json.dumps({"environment": environment(), **result}, indent=2) + "\n", encoding="utf-8")
