"""Bundles are written beside their place and renamed: nothing half-written is ever seen."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kanoclip.runtime.bundle.bundle import SUFFIX
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import ExportError
from kanoclip.runtime.system.files.leftovers import staging
from kanoclip.runtime.system.signals import error_on_sigterm


def check_output(output: Path) -> None:
    """Refuses, before any work, a place where a bundle cannot be put.

    Raises:
        ExportError: The name does not end in `.kanoclip`, the folder above is missing, or something that is not a
            bundle is there already.
    """
    if output.suffix != SUFFIX:
        raise ExportError(f"{output}: a bundle's name ends in {SUFFIX}")
    if not output.parent.is_dir():
        raise ExportError(f"{output.parent} is not a folder: make it first")
    if output.exists() and not (output / MANIFEST_NAME).is_file():
        raise ExportError(f"{output} exists and is not a bundle: name another --output")


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `output` when the block ends well, and vanishes otherwise.

    A bundle that stood there is replaced; it stays when the block fails, also by SIGTERM. What killed exports left
    beside it is removed first.

    Raises:
        ExportError: The disk refuses.
    """
    try:
        with staging(output) as folder, error_on_sigterm(f"stopped by SIGTERM; {output} is as it was"):
            folder.chmod(0o755)
            yield folder
            _replace(folder, output)
    except OSError as error:
        raise ExportError(f"cannot write {error.filename or output}: {error.strerror or error}") from error


def _replace(folder: Path, output: Path) -> None:
    if not output.exists():
        folder.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    output.rename(old / output.name)
    folder.rename(output)
    shutil.rmtree(old, ignore_errors=True)
