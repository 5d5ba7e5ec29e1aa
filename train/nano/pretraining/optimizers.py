"""Who learns how: Muon for the matrices inside the transformers, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kanoclip.train.nano.pretraining.objective import Pretraining


class Optimizers:
    """Muon for the matrices inside the transformers, AdamW for embeddings, projections and vectors."""

    def __init__(self, model: Pretraining) -> None:
        """Groups a model's parameters; those that two modules share are taken once."""
        config = model.config
        inner, matrices, vectors = [], [], []
        seen: set[int] = set()
        for name, parameter in learning(model):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if parameter.ndim != 2 or "embedding" in name:
                (matrices if parameter.ndim > 1 else vectors).append(parameter)
            elif "blocks" in name or "final." in name:
                inner.append(parameter)
            else:
                matrices.append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.all: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))]
        self.all.append(
            torch.optim.Muon(inner, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )

    def step(self, lr: float) -> None:
        """One step at a rate; gradients are dropped."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name."""
        return {
            f"optimizer/{number}/{index}/{key}": torch.as_tensor(value)
            for number, optimizer in enumerate(self.all)
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes what `state` gave."""
        states = [optimizer.state_dict() for optimizer in self.all]
        for key, value in tensors.items():
            kind, *rest = key.split("/")
            if kind == "optimizer":
                number, index, name = rest
                states[int(number)]["state"].setdefault(int(index), {})[name] = value
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


def learning(model: Pretraining) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of what learns; one that two modules share comes once for each."""
    for name, parameter in [*model.tower.named_parameters(), *model.text.named_parameters()]:
        if name != "token_embedding.weight" and parameter.requires_grad:  # the stem's trunk stays as it is
            yield name, parameter
    yield "vocabulary.embedding", model.vocabulary.weight
    yield "scale", model.scale
    yield "probe", model.probe
