"""The two TensorRTs, the full one (Jetson, data centre) and the one for RTX (PCs): one interface, two imports."""

from __future__ import annotations

import importlib
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from kanoclip.runtime.bundle.manifest.parts import FLAVOURS
from kanoclip.runtime.errors import BackendError, one_line

FULL, RTX = "tensorrt", "tensorrt-rtx"
_MODULES = {FULL: "tensorrt", RTX: "tensorrt_rtx"}
_REMEDIES = {
    FULL: "on a Jetson it comes with JetPack (make the environment with --system-site-packages); elsewhere pip install "
    "tensorrt",
    RTX: "pip install tensorrt-rtx (x86-64 Linux and Windows)",
}
_OLDEST = {FULL: (10, 3), RTX: (1, 2)}
"""RTX: 1.2 was the first with CUDA graphs and a cache of compiled kernels of its own."""
_CUDAS = (12, 13)
"""CUDA's major versions that TensorRT has wheels for."""


@dataclass(frozen=True)
class Flavour:
    """One installed TensorRT.

    Attributes:
        name: `tensorrt` or `tensorrt-rtx`.
        trt: Its Python module.
        version: Its exact version; no other one loads its engines.
        cuda_major: Of the CUDA that it was built with; None where nothing tells.
    """

    name: str
    trt: Any
    version: str
    cuda_major: int | None = None

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX."""
        return self.name == RTX

    @property
    def title(self) -> str:
        """For messages."""
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"


def load_flavour(name: str) -> Flavour:
    """Imports one of the two.

    Args:
        name: `tensorrt` or `tensorrt-rtx`.

    Raises:
        BackendError: It is unknown, not installed, broken, or older than what this project builds for.
    """
    if name not in _MODULES:
        raise BackendError(f"unknown TensorRT '{name}': choose one of {', '.join(FLAVOURS)}")
    try:
        trt = importlib.import_module(_MODULES[name])
        version = str(trt.__version__)
    # Bindings without their libraries fail with an OSError, or leave a module that holds nothing.
    except (ImportError, OSError, AttributeError) as error:
        raise BackendError(f"{name} is not installed ({one_line(error)}): {_REMEDIES[name]}") from error
    oldest = _OLDEST[name]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < oldest:
        raise BackendError(f"{name} {version} is too old: {'.'.join(map(str, oldest))} or later is needed")
    return Flavour(name, trt, version, _cuda_major(version) if name == FULL else None)


def _cuda_major(version: str) -> int | None:
    """Of full TensorRT's CUDA, by the name of its wheel or the version of its system package: it does not tell itself.

    The CUDA binding's own may be another one.
    """
    for major in _CUDAS:
        with suppress(metadata.PackageNotFoundError):
            if metadata.version(f"tensorrt_cu{major}_bindings").startswith(version):
                return major
    package = f"libnvinfer{version.partition('.')[0]}"
    try:  # such as 10.3.0.30-1+cuda12.5
        command = ["dpkg-query", "--show", "--showformat=${Version}", package]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\+cuda(\d+)", shown)
    return int(found[1]) if found and shown.startswith(version) else None


def collecting_logger(trt: Any) -> Any:
    """A logger for TensorRT that keeps errors in its list `errors`; nothing is printed between our own lines."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        @property
        def reason(self) -> str:
            return one_line(self.errors[0]) if self.errors else "no reason given"

    return Logger()
