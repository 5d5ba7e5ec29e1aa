"""No output of training, measuring and asking is one of the files that are read."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from kanoclip.runtime.cli.main import invoke


@pytest.fixture
def data(tmp_path):
    for name in ("normal/0.png", "abnormal/0.png", "masks/0.png"):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), np.full((32, 32, 3), 9, np.uint8))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "net.safetensors").write_bytes(b"mine")
    (tmp_path / "net.json").write_text("{}")
    return tmp_path


def refused(capsys, data, name, *arguments):
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert invoke(f"kanoclip-{name}", name, [str(one) for one in arguments]) in (1, 2)
    assert "would overwrite" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flag", ["--output", "--csv", "--markdown", "--sheet"])
def test_eval(capsys, data, flag):
    refused(capsys, data, "eval", "--dataset", "folder", "--root", data, flag, data / "masks/0.png")


def test_knowledge(capsys, data):
    endpoint = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--allow-http")
    where = ("--dataset", "folder", "--root", data, "--output", data / "notes.json")
    refused(capsys, data, "knowledge", "build", *endpoint, *where)


def test_train(capsys, data):
    given = ("--dataset", "folder", "--root", data, "--backbone", "random-tiny", "--weights", "none", "--overwrite")
    refused(capsys, data, "train", *given, "--output", data / "net.safetensors")
    own = data.parent / "own.json"
    shutil.copy(data / "notes.json", own)
    refused(capsys, data, "train", *given, "--output", own.with_suffix(".safetensors"), "--knowledge", own)


def test_bench(capsys, tmp_path, toy_bundle):
    (tmp_path / "old.json").write_text(json.dumps({"format": "x"}))
    refused(
        capsys, tmp_path, "bench", toy_bundle, "--baseline", tmp_path / "old.json", "--output", tmp_path / "old.json"
    )
    refused(capsys, tmp_path, "bench", toy_bundle, "--output", toy_bundle / "manifest.json")
