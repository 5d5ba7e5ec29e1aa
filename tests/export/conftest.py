"""Small models with a head that does something: an untrained head is the identity and would hide its own errors."""

from __future__ import annotations

import pytest
import torch

from kanoclip.train import backbones
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


@pytest.fixture(scope="session")
def make_tiny_stem(make_stem_backbone, lively_stem):
    """A model on a small convolutional stem, of 64 px unless `size` says otherwise."""

    def make(**options) -> LoadedModel:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(backbones.REGISTRY, "small-stem", make_stem_backbone("small-stem"))
            loaded = build_model(ModelConfig("small-stem", options.pop("size", (64, 64)), **options), "none")
        lively_stem(loaded.model.tower.stem)
        randomise(loaded.model)
        return loaded

    return make


@pytest.fixture(scope="session")
def tiny_stem(make_tiny_stem) -> LoadedModel:
    return make_tiny_stem()
