"""Small models with a head that does something: an untrained head is the identity and would hide its own errors."""

from __future__ import annotations

import pytest
import torch

from kanoclip.train.checkpoint import LoadedModel, build_model
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig


def randomise(model: KAnoCLIP, seed: int = 0) -> None:
    """Gives the zero-initialised projections values of a trained model's size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.head.named_parameters():
            if "out." in name or "up." in name or "offsets" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


@pytest.fixture(autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), "none")
    randomise(loaded.model)
    return loaded


@pytest.fixture
def make_tiny():
    def make(**options) -> LoadedModel:
        loaded = build_model(ModelConfig("random-tiny", options.pop("size", (48, 48)), **options), "none")
        randomise(loaded.model)
        return loaded

    return make
