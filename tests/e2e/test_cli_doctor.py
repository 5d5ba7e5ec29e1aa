"""`kanoclip-doctor` as a user starts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.cli.main import invoke

from .helpers import in_process

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(180)


def kanoclip_doctor(*arguments, cwd):
    command = [str(BIN / "kanoclip-doctor"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_the_shipped_bundle_runs_here_as_it_was_exported(tmp_path):
    done = kanoclip_doctor("--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nano.kanoclip" in done.stdout and "onnxruntime" in done.stdout
    assert re.search(r"yes: (onnxruntime|openvino|openvino-bf16)-cpu against the reference on 4 images", done.stdout)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_engine_that_is_named_is_the_one_that_is_scored(tmp_path, backend):
    done = kanoclip_doctor("--backend", backend, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"yes: {backend}-cpu against" in done.stdout and done.stderr == ""


def test_json_is_all_that_is_on_standard_output(tmp_path, make_toy_bundle):
    make_toy_bundle(tmp_path / "toy.kanoclip", samples=2)
    done = kanoclip_doctor("--json", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["agrees"] is True and told["bundle"].endswith("toy.kanoclip")
    assert told["comparison"]["pictures"] == 2
    assert told["machine"]["packages"]["numpy"]


@pytest.mark.parametrize(
    ("more", "code"), [(["--device", "cpu"], 0), (["--backend", "tensorrt", "--device", "cuda"], 1)]
)
def test_a_report_to_send_is_written_whatever_comes_of_it(tmp_path, make_toy_bundle, more, code):
    make_toy_bundle(tmp_path / "toy.kanoclip", samples=2)
    done = in_process("kanoclip-doctor", *more, "--report", "r.json", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    text = (tmp_path / "r.json").read_text()
    told = json.loads(text)
    assert (told["format"], told["version"]) == ("kanoclip-report", 1) and str(tmp_path) not in text
    assert told["bundle"]["precision"] == "fp32" and told["machine"]["packages"]["numpy"]
    if code:
        assert told["agrees"] is told["comparison"] is None and "tensorrt is not installed" in told["error"]
    else:
        assert told["agrees"] is True and told["error"] is None and told["comparison"]["pictures"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere.kanoclip"], 1, "no bundle nowhere.kanoclip"),
        (["old.kanoclip"], 1, "export it again"),
        (["old.kanoclip", "--device", "tpu"], 2, "'tpu' is not auto, cpu, cuda or cuda:N"),
        (["old.kanoclip", "--device", "cuda"], 1, "no cuda provider"),
        (["old.kanoclip", "--rebuild"], 2, "--backend tensorrt-rtx or tensorrt"),
        (["old.kanoclip", "--backend", "tensorrt", "--device", "cpu"], 1, "tensorrt needs a GPU"),
        (["old.kanoclip", "--backend", "tensorrt", "--device", "cuda"], 1, "comes with JetPack"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, make_toy_bundle, arguments, code, said):
    make_toy_bundle(tmp_path / "old.kanoclip", samples=int("--backend" in arguments or "cuda" in arguments))
    done = in_process("kanoclip-doctor", *arguments, cwd=tmp_path)
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], done.stderr


def test_what_a_bundle_has_learned_is_shown_and_a_damaged_memory_is_found(tmp_path, make_toy_bundle):
    own = make_toy_bundle(tmp_path / "own.kanoclip", grid=(4, 4), memory_rows=16, samples=2)
    good = tmp_path / "good"
    good.mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(90, 110, (32, 32, 3), dtype=np.uint8)
        assert cv2.imwrite(str(good / f"{number}.png"), noise)
    cpu = ["--backend", "onnxruntime", "--device", "cpu"]
    assert invoke("kanoclip-learn", "learn", [str(own), "--source", str(good), *cpu]) == 0
    done = kanoclip_doctor(own, *cpu, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "object: 3 references, 16 rows, of 20" in done.stdout
    (file,) = (own / "references").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    done = kanoclip_doctor(own, *cpu, cwd=tmp_path)
    assert done.returncode == 1 and file.name in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_machine_alone(tmp_path):
    """No bundle is opened: the only one here is broken. Nothing that computes is imported."""
    (tmp_path / "broken.kanoclip").mkdir()
    (tmp_path / "broken.kanoclip" / "manifest.json").write_text("{}")
    done = in_process("kanoclip-doctor", "--system", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"machine"}
    done = in_process("kanoclip-doctor", "--system", cwd=tmp_path)
    assert "packages" in done.stdout and "bundle" not in done.stdout
    assert in_process("kanoclip-doctor", "broken.kanoclip", "--system", cwd=tmp_path).returncode == 2
