"""The state of an unfinished run: one safetensors file that is replaced as a whole, and read without unpickling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.training.config import TrainConfig

SCHEMA = 1


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch: The epoch under way, from 0.
        step: Steps done in it.
        sums: Sums over this epoch's steps of what the objective reports.
        history: One record for each finished epoch.
    """

    epoch: int
    step: int
    sums: Mapping[str, float]
    history: tuple[Mapping[str, Any], ...]


def identity(config: TrainConfig, data: str, knowledge: str, weights_sha256: str | None) -> dict[str, Any]:
    """What a stopped run and the one that goes on with it must have in common.

    Args:
        config: The run's configuration.
        data: Digest of the images, masks and classes.
        knowledge: Digest of the descriptions in use.
        weights_sha256: Of the backbone's weights.
    """
    values = json.loads(json.dumps(asdict(config)))
    model = values.pop("model")
    return {
        **{f"model {name}": value for name, value in model.items()},
        **values,
        "images and masks": data,
        "knowledge base": knowledge,
        "backbone weights": weights_sha256,
    }


def state_path(checkpoint: Path) -> Path:
    """Where the state of a run lies that will write `checkpoint`."""
    return checkpoint.with_suffix(".state.safetensors")


def save_state(
    path: Path,
    run: Mapping[str, Any],
    progress: Progress,
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    averaged: Mapping[str, Tensor],
    scaler: Mapping[str, float],
) -> None:
    """Replaces the state's file.

    Args:
        path: `state_path`.
        run: `identity`.
        progress: How far it has come.
        learned: Parameters by name.
        optimizer: Whose parameters are `learned`'s, in its order.
        averaged: Averaged parameters by name, empty without averaging.
        scaler: The gradient scaler's state, empty without one.

    Raises:
        TrainingError: The disk is full or the folder cannot be written; the state that was there is still whole.
    """
    tensors = {f"learnt/{name}": tensor for name, tensor in learned.items()}
    tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.items()}
    for name, parameter in learned.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    record = json.dumps({"schema": SCHEMA, "run": run, "progress": asdict(progress), "scaler": dict(scaler)})
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, {"state": record})
    try:
        replace_file(path, content)
    except OSError as error:
        raise TrainingError(
            f"cannot save {path}: {error.strerror}; what was saved before is whole: make room and go on with --resume"
        ) from error


def load_state(
    path: Path,
    run: Mapping[str, Any],
    learned: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    averaged: Mapping[str, Tensor],
) -> tuple[Progress, dict[str, float]]:
    """Puts a stopped run's values back in place.

    Args:
        path: `state_path`.
        run: `identity` of the run that wants to go on.
        learned: Parameters by name: overwritten.
        optimizer: Its state is overwritten.
        averaged: Averaged parameters by name: overwritten.

    Returns:
        How far the run had come, and the gradient scaler's state.

    Raises:
        TrainingError: No such file, a damaged one, or one of another run; the message names what differs.
    """
    if not path.is_file():
        raise TrainingError(f"no {path} to go on from: start without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        if record["schema"] != SCHEMA:
            raise TrainingError(f"{path} has schema {record['schema']}, this version reads {SCHEMA}: start anew")
        stored = record["run"]
        differing = [key for key in {**stored, **run} if stored.get(key) != run.get(key)]
        if differing:
            key = differing[0]
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise TrainingError(
                f"{path} is of a run with other settings ({key}: {stored.get(key)!r} there, {run.get(key)!r} "
                f"here{more}): give the same ones, or start anew with --overwrite"
            )
        with torch.no_grad():
            for name, parameter in learned.items():
                parameter.copy_(tensors[f"learnt/{name}"])
            for name, tensor in averaged.items():
                tensor.copy_(tensors[f"averaged/{name}"])
        # A step not yet taken has no moments.
        state = optimizer.state_dict()
        names = {id(parameter): name for name, parameter in learned.items()}
        order = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        state["state"] = {
            index: {key.rpartition("/")[2]: tensors[key] for key in tensors if key.startswith(f"optimizer/{name}/")}
            for index, name in enumerate(order)
            if any(key.startswith(f"optimizer/{name}/") for key in tensors)
        }
        optimizer.load_state_dict(state)
        stored = record["progress"]
        progress = Progress(int(stored["epoch"]), int(stored["step"]), dict(stored["sums"]), tuple(stored["history"]))
        return progress, dict(record["scaler"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise TrainingError(f"{path} is damaged ({error}): start anew with --overwrite") from error
