"""Real builds with TensorRT-RTX, which needs no GPU for them."""

from __future__ import annotations

import os
import re
import sys
from types import SimpleNamespace

import pytest

from kanoclip.runtime.engines.tensorrt import flavour as flavours
from kanoclip.runtime.engines.tensorrt.building import build as module
from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions, build_engine, count_attention
from kanoclip.runtime.engines.tensorrt.flavour import Flavour, load_flavour
from kanoclip.runtime.errors import BackendError

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx has wheels for x86-64 only")
FUSED = re.compile(rb"_gemm_mha_v2_0x[0-9a-f]{32}")
QUIET = BuildOptions(targets=("8.6",))


def silent(share):
    pass


@pytest.fixture(scope="module")
def rtx():
    return load_flavour("tensorrt-rtx")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    from kanoclip.export.fused_attention import write_blocks

    path = tmp_path_factory.mktemp("blocks") / "blocks.onnx"
    write_blocks(path, 3)
    return path


def test_single_attention_blocks_are_kept_in_float32(rtx, blocks):
    assert count_attention(rtx, blocks) == 3
    counts = [
        len(FUSED.findall(build_engine(rtx, blocks, BuildOptions(targets=("8.6",), fp32_attention=chosen), silent)))
        for chosen in (frozenset(), frozenset({1}), frozenset({0, 2}), frozenset({0, 1, 2}))
    ]
    assert counts[0] > 0 and counts == [counts[0], counts[0] * 2 // 3, counts[0] // 3, 0]


def test_a_block_that_is_not_there(rtx, blocks):
    with pytest.raises(IndexError):
        build_engine(rtx, blocks, BuildOptions(targets=("8.6",), fp32_attention=frozenset({3})), silent)


@pytest.mark.parametrize("options", [{"max_batch": 2}, {"max_batch": 4, "dynamic": True}], ids=str)
def test_a_memory_has_one_shape_in_an_engine(rtx, make_toy_bundle, tmp_path, monkeypatch, options):
    """Its rows, which are open in the graph, are fixed before the build; the batch stays as it is."""
    model = make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 4), memory_rows=16, **options) / "model.onnx"
    shapes, profile = {}, module._add_profile

    def spy(builder, network, config, max_batch):
        inputs = [network.get_input(number) for number in range(network.num_inputs)]
        shapes.update({tensor.name: tuple(tensor.shape) for tensor in inputs})
        profile(builder, network, config, max_batch)

    monkeypatch.setattr(module, "_add_profile", spy)
    most = options["max_batch"]
    built = build_engine(rtx, model, BuildOptions(targets=("8.6",), max_batch=most, memory_rows=16), silent)
    assert len(built) > 0
    assert shapes == {
        "frame": (-1 if "dynamic" in options else most, 32, 32, 3),
        "memory": (16, 3),
        "memory_bias": (16,),
        "memory_centre": (3,),
        "memory_fusion": (8,),
    }
    with pytest.raises(BackendError, match="the graph takes a reference memory, and the manifest does not"):
        build_engine(rtx, model, QUIET, silent)


def test_what_the_progress_raises_ends_the_build(rtx, blocks):
    def interrupt(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(rtx, blocks, QUIET, interrupt)


def test_graph_that_does_not_parse_is_one_line(rtx, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    with pytest.raises(BackendError, match=r"cannot parse model\.onnx") as caught:
        build_engine(rtx, tmp_path / "model.onnx", QUIET, silent)
    assert "\n" not in str(caught.value)
    with pytest.raises(BackendError, match=r"cannot parse model\.onnx"):
        count_attention(rtx, tmp_path / "model.onnx")


def test_workspace_limit_is_set(rtx, blocks, monkeypatch):
    seen = []
    original = module._set_targets
    pool = rtx.trt.MemoryPoolType.WORKSPACE
    monkeypatch.setattr(
        module,
        "_set_targets",
        lambda f, config, o: (seen.append(config.get_memory_pool_limit(pool)), original(f, config, o)),
    )
    build_engine(rtx, blocks, BuildOptions(targets=("8.6",), workspace=32 << 20), silent)
    assert seen == [32 << 20]


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, True), ({"tf32": False}, False), ({"fp32_attention": frozenset({0})}, False)],
)
def test_tf32_is_cleared_where_float32_is_meant(rtx, blocks, monkeypatch, options, kept):
    seen = []
    original, flag = module._set_targets, rtx.trt.BuilderFlag.TF32
    monkeypatch.setattr(
        module, "_set_targets", lambda f, config, o: (seen.append(config.get_flag(flag)), original(f, config, o))
    )
    build_engine(rtx, blocks, BuildOptions(targets=("8.6",), **options), silent)
    assert seen == [kept]


@pytest.mark.parametrize("options", [{"stripped": True}, {"compatibility": "ampere-plus"}])
def test_what_rtx_lacks_is_refused(rtx, blocks, options):
    with pytest.raises(BackendError, match="neither stripped engines nor compatibility levels"):
        build_engine(rtx, blocks, BuildOptions(targets=("8.6",), **options), silent)


# Full TensorRT's libraries are not to be had here. Its interface is RTX's: the same enumerations and methods are
# called, so what would be set is checked on RTX's own configuration, and the build itself on a machine with a GPU.


@pytest.fixture
def full(rtx):
    return Flavour("tensorrt", rtx.trt, "10.3.0")


@pytest.fixture
def config(rtx):
    return rtx.trt.Builder(rtx.trt.Logger()).create_builder_config()


@pytest.mark.parametrize(
    ("name", "member"),
    [("none", "NONE"), ("same-compute-capability", "SAME_COMPUTE_CAPABILITY"), ("ampere-plus", "AMPERE_PLUS")],
)
def test_compatibility_levels_of_full_tensorrt(full, name, member):
    config = SimpleNamespace(hardware_compatibility_level=None)  # RTX's own ignores what is set
    module._set_compatibility(full, config, BuildOptions(compatibility=name))
    assert config.hardware_compatibility_level == getattr(full.trt.HardwareCompatibilityLevel, member)


def test_a_level_that_this_version_lacks(full, config, monkeypatch):
    class Old:
        HardwareCompatibilityLevel = type("Levels", (), {"NONE": 0, "AMPERE_PLUS": 1})

    with pytest.raises(BackendError, match=r"TensorRT 10\.3\.0 has no compatibility level 'same-compute"):
        module._set_compatibility(
            Flavour("tensorrt", Old, "10.3.0"), config, BuildOptions(compatibility="same-compute-capability")
        )


def test_stripped_engines_are_refitted_with_the_same_weights(full, config):
    module._set_compatibility(full, config, BuildOptions(stripped=True))
    assert config.get_flag(full.trt.BuilderFlag.STRIP_PLAN) and config.get_flag(full.trt.BuilderFlag.REFIT_IDENTICAL)


def test_full_tensorrt_builds_for_the_gpu_that_is_here(full, config):
    with pytest.raises(BackendError, match="--compute-capability"):
        module._set_compatibility(full, config, BuildOptions(targets=("8.6",)))


class Timing:
    """A configuration with a timing cache as full TensorRT has it."""

    def __init__(self, accepted):
        self.accepted, self.attached = accepted, None

    def create_timing_cache(self, content):
        return None if content == b"damaged" else Content(bytes(content))

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        if cache.content and cache.content != self.accepted:
            return False
        self.attached = cache
        return True


class Content:
    def __init__(self, content):
        self.content = content

    def serialize(self):
        return self.content + b"+new"


@pytest.mark.parametrize(
    ("stored", "kept"),
    [(None, b"+new"), (b"ours", b"ours+new"), (b"another GPU's", b"+new"), (b"damaged", b"+new")],
)
def test_timing_cache_is_read_and_grows_unless_it_is_another_gpus(tmp_path, stored, kept):
    path = tmp_path / "engines" / "timing.cache"
    if stored is not None:
        path.parent.mkdir()
        path.write_bytes(stored)
    config = Timing(b"ours")
    cache = module._attach_timing_cache(config, path)
    assert config.attached is cache
    module._keep_timing_cache(cache, path)
    assert path.read_bytes() == kept


def test_a_timing_cache_that_cannot_be_written_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    module._keep_timing_cache(Content(b""), tmp_path / "file" / "timing.cache")


def test_no_timing_cache_is_asked_for():
    assert module._attach_timing_cache(Timing(b""), None) is None


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_missing_flavours_say_where_they_come_from(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    with pytest.raises(BackendError, match=f"{name} is not installed.*pip install"):
        load_flavour(name)


@pytest.mark.parametrize(
    ("wheels", "package", "expected"),
    [
        ({"tensorrt_cu12_bindings": "10.16.1.11"}, "", 12),
        ({"tensorrt_cu13_bindings": "10.16.1.11.post1"}, "", 13),
        ({"tensorrt_cu12_bindings": "10.3.0", "tensorrt_cu13_bindings": "10.16.1.11"}, "", 13),
        ({}, "10.16.1.11-1+cuda12.5", 12),
        ({}, "10.16.1.11-1+cuda13.2", 13),
        ({}, "10.3.0.30-1+cuda12.5", None),
        ({}, "", None),
    ],
)
def test_the_cuda_of_full_tensorrt_is_that_of_its_package(monkeypatch, tmp_path, wheels, package, expected):
    def version(name):
        if name not in wheels:
            raise flavours.metadata.PackageNotFoundError(name)
        return wheels[name]

    query = tmp_path / "dpkg-query"
    query.write_text(f"#!/bin/sh\ntest \"$3\" = libnvinfer10 && test -n '{package}' && printf '{package}'\n")
    query.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(flavours.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "tensorrt", type("TensorRt", (), {"__version__": "10.16.1.11"}))
    assert load_flavour("tensorrt").cuda_major == expected


def test_unknown_old_and_empty_flavours(monkeypatch):
    with pytest.raises(BackendError, match="tensorrt-rtx, tensorrt"):
        load_flavour("tensorflow")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", type("Old", (), {"__version__": "1.1.0"}))
    with pytest.raises(BackendError, match=r"tensorrt-rtx 1\.1\.0 is too old: 1\.2"):
        load_flavour("tensorrt-rtx")
    monkeypatch.setitem(sys.modules, "tensorrt", type("Old", (), {"__version__": "8.6.1"}))
    with pytest.raises(BackendError, match=r"8\.6\.1 is too old: 10\.3"):
        load_flavour("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", type("Bindings", (), {}))
    with pytest.raises(BackendError, match="is not installed"):
        load_flavour("tensorrt")
