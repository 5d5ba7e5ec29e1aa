from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.graphs.int8 import Answers, drift, main, some
from kanoclip.benchmarks.studies.graphs.quantised_forms import FORMS
from kanoclip.runtime.engines.openvino import has_bf16
from kanoclip.runtime.system.hardware import instruction_sets
from kanoclip.train.data.registry import open_dataset

EXAMPLES = Path(__file__).parents[4] / "examples"


def answers(values, auroc):
    maps = [np.full((2, 2), value, np.float32) for value in values]
    return Answers(maps, [value / 2 for value in values], {"image_auroc": auroc, "pixel_auroc": None})


def test_drift_is_of_the_worst_image_and_of_all():
    found = drift(answers([0.1, 0.5], 0.9), answers([0.1, 0.3], 0.905))
    assert found["map_max"] == pytest.approx(0.2) and found["map_mean"] == pytest.approx(0.1)
    assert found["score_max"] == pytest.approx(0.1) and found["score_mean"] == pytest.approx(0.05)
    assert found["image_auroc_points"] == pytest.approx(-0.5) and found["pixel_auroc_points"] is None


def test_a_limit_takes_images_of_both_kinds():
    dataset = open_dataset("mvtec", EXAMPLES)
    few = some(dataset, 6)
    assert [len(one.samples) for one in few.categories] == [6]
    assert {sample.anomalous for one in few.categories for sample in one.samples} == {True, False}
    assert some(dataset, None) is dataset


@pytest.mark.nightly
def test_what_ships_is_scored_where_nothing_is_named(tmp_path):
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.graphs.int8", "--root", str(EXAMPLES), "--limit", "4"]
    command += ["--rounds", "2", "--output", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    forms = json.loads((tmp_path / "r.json").read_text())["forms"]
    assert list(forms) == ["fp32", "int8-cpu"] and forms["int8-cpu"]["model_mb"] < forms["fp32"]["model_mb"]
    assert 0 < forms["int8-cpu"]["onnxruntime"]["map_max"] < 0.1, "the bundle's own bound"


def test_another_backbone_needs_images_to_calibrate_on():
    said = CliRunner().invoke(main, ["--root", str(EXAMPLES), "--backbone", "random-tiny"])
    assert said.exit_code == 2 and "--calibration" in said.output


@pytest.mark.nightly
def test_a_small_model_gives_drift_and_ratios_of_every_form_in_every_backend(tmp_path):
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.graphs.int8", "--backbone", "random-tiny"]
    command += [
        "--root",
        str(EXAMPLES),
        "--calibration",
        str(EXAMPLES / "hazelnut_toy" / "test" / "good"),
        "--limit",
        "6",
        "--rounds",
        "2",
    ]
    done = subprocess.run([*command, "--output", str(tmp_path / "r.json")], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result["instruction_sets"]) <= instruction_sets() and result["pictures"] == 6
    assert tuple(result["forms"]) == FORMS
    backends = ["onnxruntime", "openvino", *(["openvino-bf16"] if has_bf16() else [])]
    assert set(result["times"]) == {f"{form} in {name}" for form in FORMS for name in backends}
    for name in backends[:2]:
        assert result["times"][f"fp32 in {name}"]["ratio_to_fp32"] == 1
        assert result["forms"]["fp32"][name]["map_max"] < 1e-3
        for form in FORMS[1:]:
            assert 0 < result["forms"][form][name]["map_mean"] <= result["forms"][form][name]["map_max"] < 0.2
    assert result["forms"]["int8-cpu"]["model_mb"] < result["forms"]["fp32"]["model_mb"]
