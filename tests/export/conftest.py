"""Small models with a head that does something: an untrained head is the identity and would hide its own errors."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, finish, trace
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
    """A model whose weights fp16 holds exactly, as most published CLIPs' are. Shared: leave it as it is."""
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), "none")
    randomise(loaded.model)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.copy_(parameter.half())
    return loaded


@pytest.fixture(scope="session")
def traced(tiny, tmp_path_factory) -> Callable[[str], Path]:
    """`tiny`'s graph of one class and one frame as torch writes it: fp32 at opset 18, fp16 at 19.

    Each takes ten seconds and is made once, whichever of pytest's processes needs it first.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "traced"
    folder.mkdir(exist_ok=True)

    @cache
    def write(precision: str) -> Path:
        path = folder / f"{precision}.onnx"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                opset = {"fp32": 18, "fp16": 19}[precision]
                program = trace(DeployGraph(tiny.model, ["bolt"], precision), (48, 48), BatchSpec(), opset)
                program.save(path.with_suffix(".part"))
                path.with_suffix(".part").rename(path)
        return path

    return write


@pytest.fixture(scope="session")
def plain(traced, tmp_path_factory) -> Callable[..., Path]:
    """What `write_onnx` makes of `traced`; with `in_half` False as quantisation begins with it."""

    @cache
    def write(precision: str, *, in_half: bool = True) -> Path:
        path = tmp_path_factory.mktemp(precision) / "model.onnx"
        model = ir.load(traced(precision))
        finish(model, in_half=in_half)
        ir.save(model, path)
        return path

    return write


@pytest.fixture
def examples() -> Path:
    """Labelled photographs, a few of each kind."""
    return Path(str(resources.files("kanoclip.examples").joinpath("hazelnut_toy")))


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
