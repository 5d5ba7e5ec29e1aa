"""The toy bundle: a real ONNX graph whose answers are known, in a full and valid bundle. And the system's programs."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import hypothesis
import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import sha256_of
from kanoclip.runtime.bundle.manifest.parts import (
    INTERPOLATION,
    RESIZE_RULE,
    FileInfo,
    ModelInfo,
    Preprocessing,
    Thresholds,
)
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, MODEL_FILE, SCHEMA, Manifest
from kanoclip.runtime.bundle.manifest.signature import DescriptorInfo, MemoryInfo, graph_signature

OPSET = 18

# A machine with two cores that other work shares takes its time now and then: that is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# A shell starts what runs behind it with SIGINT ignored, and every process of a test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/games")
"""Where Debian puts servers and odd programs; not on every user's PATH."""


def find_program(name: str) -> str:
    """The path of a system's program that a test starts; without it the test is skipped, or fails where it must run.

    Args:
        name: Such as `mosquitto`. Its Debian package belongs into tests/apt-packages.txt, which .ci/run installs.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS]))
    if found is None:
        reason = f"{name} is not installed (tests/apt-packages.txt)"
        if os.environ.get("KANOCLIP_REQUIRE_SERVICES") == "1":
            pytest.fail(f"{reason}, and KANOCLIP_REQUIRE_SERVICES=1 wants every such test run", pytrace=False)
        pytest.skip(reason)
    return found


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Looks for the programs that `@pytest.mark.programs("mosquitto", ...)` names before any fixture is made."""
    for mark in item.iter_markers("programs"):
        for name in mark.args:
            find_program(name)


@pytest.fixture(scope="session")
def program():
    """`find_program`: the path of a system's program; skips the test, or fails it, where it is not installed."""
    return find_program


def toy_descriptors(frames, grid: tuple[int, int]):
    """What the toy graph's `descriptor` is: the mean colour of each cell plus 1, normalised; float32 [B, P, 3]."""
    (batch, height, width, _), (rows, columns) = frames.shape, grid
    cells = frames.astype(np.float32).reshape(batch, rows, height // rows, columns, width // columns, 3)
    means = cells.mean((2, 4)).reshape(batch, rows * columns, 3) + np.float32(1)
    return means / np.linalg.norm(means, axis=2, keepdims=True)


def toy_answers(frames, descriptors, memory) -> tuple[Any, Any]:
    """What the toy graph of one class gives with a `MemoryTensors`: each of its numbers shows, none is like a real one.

    Maps are the plain ones times the gain, scores the largest product of a descriptor and a row, bias and centre added.
    """
    products = descriptors @ memory.rows.T + memory.bias
    maps = frames.mean(3, dtype=np.float32) / np.float32(255) * memory.fusion[1]
    return maps, products.max((1, 2)) + memory.centre.sum()


def write_toy_graph(path: Path, inputs, outputs, *, bf16: bool = False, grid: tuple[int, int] | None = None) -> None:
    """map = mean over channels / 255, inverted for class 1; score = the map's largest value; see `toy_descriptors`."""
    from onnx import TensorProto, checker, helper, save

    types = {"uint8": TensorProto.UINT8, "int64": TensorProto.INT64, "float32": TensorProto.FLOAT}
    pixels = TensorProto.BFLOAT16 if bf16 else TensorProto.FLOAT  # no CPU provider has a mean of bfloat16
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=pixels),
        helper.make_node("ReduceMean", ["pixels", "channels"], ["rough"], keepdims=0),
        helper.make_node("Cast", ["rough"], ["mean"], to=TensorProto.FLOAT),
    ]
    names = {spec.name for spec in inputs}
    several, memory = "class_index" in names, "memory" in names
    zero_map, zero_score = ("zero_map", "zero_score") if memory else ("map", "score")
    nodes.append(helper.make_node("Div", ["mean", "white"], ["plain" if several else zero_map]))
    if several:  # map = plain + class * (1 - 2 * plain)
        nodes += [
            helper.make_node("Cast", ["class_index"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["number", "plane"], ["weight"]),
            helper.make_node("Sub", ["one", "plain"], ["inverse"]),
            helper.make_node("Sub", ["inverse", "plain"], ["difference"]),
            helper.make_node("Mul", ["weight", "difference"], ["change"]),
            helper.make_node("Add", ["plain", "change"], [zero_map]),
        ]
    nodes.append(helper.make_node("ReduceMax", [zero_map, "plane"], [zero_score], keepdims=0))
    if grid is not None:
        nodes += [
            helper.make_node("Cast", ["frame"], ["colours"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["colours", "cells"], ["celled"]),
            helper.make_node("ReduceMean", ["celled", "inside"], ["means"], keepdims=0),
            helper.make_node("Reshape", ["means", "listed"], ["rows"]),
            helper.make_node("Add", ["rows", "one"], ["shifted"]),
            helper.make_node("ReduceL2", ["shifted", "last"], ["length"], keepdims=1),
            helper.make_node("Div", ["shifted", "length"], ["descriptor"]),
        ]
    if memory:
        nodes += [
            helper.make_node("Transpose", ["memory"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["descriptor", "turned"], ["bare"]),
            helper.make_node("Add", ["bare", "memory_bias"], ["products"]),
            helper.make_node("ReduceMax", ["products", "plane"], ["best"], keepdims=0),
            helper.make_node("ReduceSum", ["memory_centre"], ["moved"], keepdims=0),
            helper.make_node("Add", ["best", "moved"], ["held_score"]),
            helper.make_node("Gather", ["memory_fusion", "first"], ["active"]),
            helper.make_node("Gather", ["memory_fusion", "second"], ["gain"]),
            helper.make_node("Greater", ["active", "half"], ["has_memory"]),
            helper.make_node("Mul", [zero_map, "gain"], ["held_map"]),
            helper.make_node("Where", ["has_memory", "held_map", zero_map], ["map"]),
            helper.make_node("Where", ["has_memory", "held_score", zero_score], ["score"]),
        ]
    rows, columns = grid or (1, 1)
    _, height, width, _ = inputs[0].shape
    cells, listed = [0, rows, height // rows, columns, width // columns, 3], [0, rows * columns, 3]
    constants = [
        helper.make_tensor("cells", TensorProto.INT64, [6], cells),
        helper.make_tensor("inside", TensorProto.INT64, [2], [2, 4]),
        helper.make_tensor("listed", TensorProto.INT64, [3], listed),
        helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        helper.make_tensor("channels", TensorProto.INT64, [1], [3]),
        helper.make_tensor("plane", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("white", TensorProto.FLOAT, [], [255.0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
        helper.make_tensor("second", TensorProto.INT64, [], [1]),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(spec.name, types[spec.dtype], spec.shape) for spec in inputs],
        [helper.make_tensor_value_info(spec.name, types[spec.dtype], spec.shape) for spec in outputs],
        [constant for constant in constants if constant.name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    checker.check_model(model, full_check=True)
    save(model, path)


def build_toy_bundle(
    folder: Path,
    classes: tuple[str, ...] = ("object",),
    size: int | tuple[int, int] = 32,
    dynamic: bool = False,
    max_batch: int = 1,
    bf16: bool = False,
    samples: int = 0,
    grid: tuple[int, int] | None = None,
    memory_rows: int = 0,
    **changes: Any,
) -> Path:
    """Writes a toy bundle.

    Args:
        folder: Where; made if need be.
        classes: Class names; with several the graph takes `class_index`, and class 1 inverts the map.
        size: Side of the square that the graph takes, or (height, width).
        dynamic: The batch axis is dynamic, from 1 to `max_batch`.
        max_batch: Batch size.
        bf16: The graph computes in bfloat16, which no CPU provider runs.
        samples: Images that travel with it, and bounds of a parity report.
        grid: (rows, columns) of the descriptor output; None for no such output.
        memory_rows: Most rows of a reference memory, which takes a grid; see `toy_answers`.
        changes: Other values for fields of the manifest.
    """
    height, width = (size, size) if isinstance(size, int) else size
    axis: int | str = "batch" if dynamic else max_batch
    descriptor = None if grid is None else DescriptorInfo(grid, 3, hashlib.sha256(repr(grid).encode()).hexdigest())
    memory = MemoryInfo(memory_rows) if memory_rows else None
    square = (height, width)
    inputs, outputs = graph_signature(square, len(classes), axis, square, descriptor, memory=memory is not None)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / MODEL_FILE
    write_toy_graph(model, inputs, outputs, bf16=bf16, grid=grid)
    paths = [model]
    for number in range(samples):
        paths.append(folder / "samples" / f"{number}.jpg")
        paths[-1].parent.mkdir(exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert cv2.imwrite(str(paths[-1]), noise)
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "name": "toy",
        "created": "2026-01-02T03:04:05+00:00",
        "model": ModelInfo(
            backbone="toy",
            image_size=(height, width),
            trained=True,
            weights="seeded:0",
            weights_sha256=None,
            checkpoint_sha256=None,
            prompts="handcrafted",
            vv=False,
            bicmci=False,
            conv_adapter=False,
            global_token="original",
        ),
        "classes": tuple(classes),
        "precision": "bf16" if bf16 else "fp32",
        "opset": OPSET,
        "inputs": inputs,
        "outputs": outputs,
        "max_batch": max_batch,
        "preprocessing": Preprocessing(RESIZE_RULE, INTERPOLATION),
        "thresholds": Thresholds(image=0.5, pixel=0.5, min_area=0, origin="made up for tests"),
        "provenance": {"made by": "tests/conftest.py"},
        "parity": {"bounds": {"map": 1e-3, "score": 1e-4}} if samples else None,
        "files": {
            path.relative_to(folder).as_posix(): FileInfo(sha256_of(path), path.stat().st_size) for path in paths
        },
        "engines": (),
        "descriptor": descriptor,
        "memory": memory,
    }
    (folder / MANIFEST_NAME).write_text(Manifest(**fields | changes).to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """The tests, and the commands that they start, keep engines, trials and settings away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        # Weights that were downloaded before are used where they lie.
        patch.setenv("HF_HOME", os.environ.get("HF_HOME", str(_user_cache() / "huggingface")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


@pytest.fixture(scope="session")
def make_toy_bundle():
    """`build_toy_bundle`: writes a toy bundle into a folder and returns the folder."""
    return build_toy_bundle


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory) -> Path:
    """A toy bundle of one class, `object`, at 32x32, fixed batch 1. Shared: copy it before you change it."""
    return build_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy.kanoclip")


@pytest.fixture(scope="session", name="toy_descriptors")
def expected_descriptors():
    """`toy_descriptors`: what a toy bundle with a descriptor output gives for frames at model size."""
    return toy_descriptors


@pytest.fixture(scope="session", name="toy_answers")
def expected_answers():
    """`toy_answers`: what a toy bundle with a reference memory gives for frames at model size."""
    return toy_answers


@pytest.fixture(scope="session")
def make_memory():
    """Makes a memory for a toy bundle: rows, bias, centre and fusion drawn by a seed."""
    from kanoclip.runtime.engines.inputs import MemoryTensors

    def make(rows: int, seed: int = 0, channels: int = 3) -> MemoryTensors:
        rng = np.random.default_rng(seed)
        found = rng.standard_normal((rows, channels)).astype(np.float32)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        bias, centre = rng.random((2, max(rows, channels))).astype(np.float32)
        fusion = np.array([1, 0.25 + seed / 8, 0, 0, 0, 0, 0, 0], np.float32)
        return MemoryTensors(found, bias[:rows], centre[:channels], fusion)

    return make


@pytest.fixture(scope="session")
def make_stem_backbone():
    """A backbone of a name with a small convolutional stem: EfficientNet-Lite0, 64 px, descriptors of 264 channels."""
    from kanoclip.train.backbones import Backbone

    class StemBackbone(Backbone):
        def architecture(self) -> dict[str, Any]:
            return {
                "embed_dim": 64,
                "quick_gelu": False,
                "vision_cfg": {"image_size": 64, "layers": 4, "width": 64, "head_width": 32, "patch_size": 16},
                "stem_cfg": {"variant": "LITE0", "descriptor_channels": 264},
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
            }

    def make(name: str) -> Backbone:
        return StemBackbone(name, "for tests")

    return make


@pytest.fixture(scope="session")
def lively_stem():
    """Gives a stem weights and statistics with which its stages differ from image to image, as the published ones do.

    torch's first values let the signal fade over fifty convolutions until nothing but the biases is left.
    """
    import torch

    def enliven(stem: Any, seed: int = 0) -> Any:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in stem.trunk.convolutions():
                weight = layer.conv.weight
                gain = 1.4 if layer.relu else 0.9
                fan = weight[0].numel()
                weight.copy_(torch.randn(weight.shape, generator=generator) * gain * fan**-0.5)
                layer.conv.bias.copy_(torch.randn(layer.conv.bias.shape, generator=generator) * 0.1)
            size = tuple(16 * side for side in stem.grid)
            features = stem.read_scaled(torch.randn(8, 3, *size, generator=generator))
            rows = stem.gather(features).flatten(0, 1)
            stem.mean.copy_(rows.mean(0))
            stem.std.copy_(rows.std(0) + 1e-3)
            parts = [part.transpose(0, 1).flatten(1) for part in (features.fine, features.middle, features.coarse)]
            stem.descriptor_mean.copy_(torch.cat([part.mean(1) for part in parts]))
            stem.descriptor_std.copy_(torch.cat([part.std(1) for part in parts]) + 1e-3)
            drawn = torch.randn(stem.descriptor_basis.T.shape, generator=generator)
            stem.descriptor_basis.copy_(torch.linalg.qr(drawn)[0].T)
        return stem

    return enliven
