"""Checkpoints on Hugging Face's hub: a `.safetensors` file and the `.json` beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from kanoclip.runtime.errors import CheckpointError
from kanoclip.runtime.ops.fleet.stores.hub import check_repository, fetch

FILE = "kanoclip.safetensors"


def fetch_checkpoint(text: str) -> Path:
    """Fetches a checkpoint; both files come from one commit.

    Args:
        text: `OWNER/NAME[/FILE][@REVISION]`.

    Returns:
        The `.safetensors` file in the cache, its `.json` beside it.

    Raises:
        CheckpointError: The text names no checkpoint.
        FleetError: A file cannot be had, or is not what its hash says.
    """
    place, _, revision = text.removeprefix("hf://").partition("@")
    owner, _, rest = place.partition("/")
    name, _, file = rest.partition("/")
    repository = check_repository(f"{owner}/{name}" if name else owner)
    file = file or FILE
    if PurePosixPath(file).suffix != ".safetensors" or ".." in file:
        raise CheckpointError(f"{text}: a checkpoint's name ends in .safetensors")
    tensors = fetch(repository, file, revision or None)
    # The snapshot's folder is the commit: a push between the two must not mix them.
    commit = tensors.parents[len(PurePosixPath(file).parts) - 1].name
    fetch(repository, str(PurePosixPath(file).with_suffix(".json")), commit)
    return tensors
