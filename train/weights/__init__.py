"""nano's weights, which travel with the package: the CLIP (`nano-clip`) and what KAnoCLIP learned over it (`nano`)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

CLIP = "nano-clip.safetensors"
CHECKPOINT = "nano.safetensors"


def packaged(name: str) -> Path:
    """Where one of the files lies."""
    return Path(str(resources.files(__name__).joinpath(name)))
