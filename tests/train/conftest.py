"""Small CLIPs whose every parameter differs from its initial value.

open_clip starts with zero biases and layer norms of weight 1: a forgotten bias or norm would not show.
"""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch

from kanoclip.train.backbones import get_backbone
from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VISION = {"image_size": 48, "layers": 4, "width": 64, "head_width": 32, "patch_size": 8}


def shake(module: torch.nn.Module, seed: int = 0, size: float = 0.1) -> torch.nn.Module:
    """Moves every parameter, reproducibly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="shake", scope="session")
def shake_fixture():
    return shake


@pytest.fixture(scope="session")
def make_clip():
    """A CLIP of random-tiny's size, with changes to its image tower."""

    def make(*, quick_gelu: bool = False, **vision) -> open_clip.CLIP:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            clip = open_clip.CLIP(64, {**VISION, **vision}, dict(TEXT), quick_gelu=quick_gelu).eval()
        return shake(clip)

    return make


@pytest.fixture(scope="session")
def clip(make_clip) -> open_clip.CLIP:
    """Shared by the session: leave it as it is."""
    return make_clip()


@pytest.fixture(scope="session")
def make_model(make_clip):
    """KAnoCLIP of random-tiny's shape with a head that has left the identity."""

    def make(*, untrained: bool = False, **options) -> KAnoCLIP:
        config = ModelConfig("random-tiny", options.pop("image_size", (48, 48)), **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            model = KAnoCLIP(make_clip(), config)
        if not untrained:
            shake(model.head, seed=3, size=0.2)
        return model

    return make


@pytest.fixture(scope="session")
def architecture() -> dict:
    return get_backbone("random-tiny").architecture()


@pytest.fixture
def normal():
    """Reproducible normally distributed tensors."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)
