"""What the recipe makes of learned weights: their mean with the first values, and half precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.checkpoint import build_model, load_checkpoint, save_checkpoint


def halve(source: Path, target: Path) -> None:
    """Writes weights in fp16.

    Raises:
        TrainingError: A value does not fit.
    """
    replace_file(target, save(_in_half(load_file(source), source)))


def halve_checkpoint(source: Path, clip: Path, target: Path) -> None:
    """Writes a checkpoint in fp16, so that a float32 graph of it is stored in fp16 without loss.

    Raises:
        TrainingError: A value does not fit.
        CheckpointError: The checkpoint or the weights cannot be read, or it cannot be written.
    """
    loaded = load_checkpoint(source, str(clip))
    learned = _in_half(loaded.model.learnable(), source)
    training = json.loads(source.with_suffix(".json").read_text()).get("training")
    save_checkpoint(target, loaded.model, loaded.weights, learned=learned, training=training)


def soften(source: Path, clip: Path, target: Path, seed: int) -> None:
    """Writes the mean of a checkpoint's weights and of those that its training began with.

    A head that was fitted to a few sets of images loses on others what the tower had; half of the way back keeps more
    of both (WiSE-FT, Wortsman and others 2022; docs/nano.md has what it does here).

    Args:
        source: What `kanoclip-train` wrote.
        clip: The backbone's weights.
        target: Checkpoint to write.
        seed: Of the training.

    Raises:
        CheckpointError: The checkpoint or the weights cannot be read, or it cannot be written.
    """
    loaded = load_checkpoint(source, str(clip))
    first = build_model(loaded.model.config, str(clip), seed).model.learnable()
    mean = {name: (value + first[name]) / 2 for name, value in loaded.model.learnable().items()}
    training = json.loads(source.with_suffix(".json").read_text()).get("training")
    save_checkpoint(target, loaded.model, loaded.weights, learned=mean, training=training)


def _in_half(tensors: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    halved = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    for name, tensor in halved.items():
        if not bool(tensor.isfinite().all()):
            raise TrainingError(f"{name} in {source} does not fit into fp16")
    return halved
