from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kanoclip.benchmarks.studies.extras import PYTHONS, read_project, requirements, resolve

ROOT = Path(__file__).parents[3]
OTHER = {"gpu-cu12": "13", "gpu-cu13": "12"}


@pytest.fixture(scope="module")
def project():
    return read_project(ROOT / "pyproject.toml")


def wanted(project, extra, python):
    return {one.name: one for one in map(Requirement, requirements(project, extra, python))}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", OTHER)
def test_all_of_an_extra_for_gpus_is_of_one_cuda(project, extra, python):
    found = wanted(project, extra, python)
    major = extra.removeprefix("gpu-cu")
    assert f"tensorrt-cu{major}-bindings" in found and f"tensorrt-cu{OTHER[extra]}-bindings" not in found
    assert found["cuda-python"].specifier.contains(f"{major}.9") and not found["cuda-python"].specifier.contains("14")
    assert not found["cuda-python"].specifier.contains(f"{OTHER[extra]}.5")
    assert not found[f"tensorrt-cu{major}-bindings"].specifier.contains("11.0"), "ONNX Runtime's provider wants 10"
    runtime = found.get("onnxruntime-gpu")
    if (extra, python) == ("gpu-cu13", "3.10"):
        assert runtime is None and "onnxruntime" in found, "there is no such wheel: the CPU's is the reference"
        return
    assert runtime.extras == {"cuda", "cudnn"}, "pip brings CUDA's libraries"
    built_for = {"1.20.2": None, "1.23.2": "12", "1.26.0": "12", "1.27.0": None, "1.28.0": "13", "1.31.1": "13"}
    for version, cuda in built_for.items():
        assert runtime.specifier.contains(version) is (cuda == major), version
    assert "onnxruntime" not in found, "both install the same files"


@pytest.mark.parametrize(("python", "cuda"), [("3.10", "12"), ("3.11", "13"), ("3.13", "13")])
def test_gpu_alone_is_the_newest_cuda_that_this_python_has(project, python, cuda):
    assert requirements(project, "gpu", python) == requirements(project, f"gpu-cu{cuda}", python)


def test_the_images_constraints_are_within_the_bounds(project):
    found = wanted(project, "gpu-cu13", "3.12")
    lines = (ROOT / "docs" / "deploy" / "constraints-x86.txt").read_text().splitlines()
    pinned = {
        one.name: str(one.specifier)[2:] for line in lines if line[:1] not in ("", "#") for one in [Requirement(line)]
    }
    assert set(pinned) == {"onnxruntime-gpu", "tensorrt-cu13", "cuda-python"}
    for name, version in pinned.items():
        wanted_by_us = found.get(name) or found[f"{name}-bindings"]
        assert wanted_by_us.specifier.contains(version), name


@pytest.mark.nightly
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", ["gpu", *OTHER])
def test_pip_finds_wheels_for_all_of_it(project, extra, python):
    found = resolve(requirements(project, extra, python), python)
    assert found.packages, found.reason
    cudas = {name for name in found.packages if name.endswith("-cu12")} and {
        name for name in found.packages if name.endswith("-cu13")
    }
    assert not cudas, "one CUDA"
