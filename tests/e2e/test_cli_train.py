"""`kanoclip-train` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file

from .helpers import in_process

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The example photographs in the MVTec tree, shrunk."""
    root = tmp_path_factory.mktemp("mvtec")
    for path in EXAMPLES.rglob("*"):
        if path.suffix in (".jpg", ".png"):
            target = (root / "hazelnut" / path.relative_to(EXAMPLES)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(target), cv2.resize(image, (64, 64), interpolation=cv2.INTER_NEAREST))
    return root


@pytest.fixture
def arguments(root, tmp_path):
    """The least that a run needs, and a cache of the test's own."""
    return ["--dataset", "mvtec", "--root", root, "--backbone", "random-tiny", "--cache", tmp_path / "cache"]


def train(*arguments, launcher=(), **options):
    command = [*(launcher or [BIN / "kanoclip-train"]), *arguments]
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, env=ENVIRONMENT, **options
    )


def train_here(*arguments, cwd=None):
    """In this process, where torch is there already."""
    return in_process("kanoclip-train", *arguments, cwd=cwd, env=ENVIRONMENT)


def refused(done, code, *words):
    """One line on standard error that holds the words, after warnings of one line each."""
    assert done.returncode == code, done.stderr
    *before, last = done.stderr.splitlines()
    assert all(line.startswith("warning: ") for line in before), done.stderr
    assert last.startswith("error: ")
    for word in words:
        assert str(word) in last, done.stderr


def test_a_folder_is_trained_on(arguments, tmp_path):
    """That what was learned is exported and measured from there on is test_cli_eval's."""
    done = train(*arguments, "--epochs", 3, "--output", tmp_path / "nuts.safetensors")
    assert done.returncode == 0, done.stderr
    assert "epoch 3/3" in done.stderr and "from the cache" in done.stderr
    assert "seeded" in done.stderr, "a backbone that knows nothing is called that"
    told = json.loads((tmp_path / "nuts.json").read_text())["training"]
    assert [record["epoch"] for record in told["epochs"]] == [1, 2, 3]
    assert told["categories"]["hazelnut"]["anomalous"] == 17
    assert list(tmp_path.glob("*.state.*")) == []


def test_the_kd_loss_acts_on_the_shipped_backbone_and_knowledge(root, tmp_path):
    """With eq. 2 as printed and the texts of a class beginning alike, it was 0 on every image."""
    nano = ["--dataset", "mvtec", "--root", root, "--backbone", "nano", "--no-cache", "--epochs", 1]
    done = train_here(*nano, "--output", tmp_path / "c.safetensors")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads((tmp_path / "c.json").read_text())["training"]["epochs"]
    assert record["kd_active"] > 0 and record["kd"] > 0
    assert f"kd_active {record['kd_active']:.4f}" in done.stderr
    assert "warning" not in done.stderr


def test_a_kd_loss_that_does_nothing_is_told_with_a_remedy(arguments, tmp_path):
    """A background that says the same as the abnormal descriptions leaves nothing to learn from."""
    entry = {"class_name": "hazelnut", "background": "a perfect hazelnut", "abnormal": ["a perfect hazelnut"]}
    record = {"schema": 1, "domain": "d", "version": "1", "origin": "o"}
    base = tmp_path / "base.json"
    base.write_text(json.dumps({**record, "datasets": {"mvtec": {"hazelnut": {**entry, "observed": []}}}}))
    done = train_here(*arguments, "--epochs", 1, "--knowledge", base, "--output", tmp_path / "c.safetensors")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "kd_active 0 in every epoch" in line]
    assert line.startswith("warning: ") and "--kd-margin above 1.75" in line and "background" in line


EPOCHS = 20
"""So many that a signal after the second finds the run still going."""


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    least = ["--dataset", "mvtec", "--root", root, "--backbone", "random-tiny", "--cache", folder / "cache"]
    done = train(*least, "--epochs", EPOCHS, "--output", folder / "whole.safetensors")
    assert done.returncode == 0, done.stderr
    return folder / "whole.safetensors"


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGTERM])
def test_a_signal_saves_and_resume_goes_on_to_the_same_checkpoint(arguments, tmp_path, whole, number):
    parts = tmp_path / "parts.safetensors"
    options = [*arguments, "--epochs", EPOCHS, "--output", parts]
    process = subprocess.Popen(
        [str(part) for part in [BIN / "kanoclip-train", *options]], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    for line in process.stderr:
        if line.startswith("epoch 2/"):
            process.send_signal(number)
            break
    told = process.stderr.read()
    assert process.wait(60) == 130
    assert "--resume" in told
    assert not parts.exists()
    if number == signal.SIGINT:
        refused(train(*options), 2, "parts.state.safetensors", "--resume", "--overwrite")
    done = train(*options, "--resume")
    assert done.returncode == 0, done.stderr
    assert "going on at epoch" in done.stderr
    one, other = load_file(whole), load_file(parts)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    records = [json.loads(path.with_suffix(".json").read_text())["training"]["epochs"] for path in (whole, parts)]
    assert records[0][-1]["loss"] == records[1][-1]["loss"]


@pytest.mark.nightly
def test_a_killed_run_goes_on_from_its_last_saved_state(arguments, tmp_path):
    output = tmp_path / "c.safetensors"
    options = [*arguments, "--epochs", 40, "--output", output]
    process = subprocess.Popen(
        [str(part) for part in [BIN / "kanoclip-train", *options]], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    for line in process.stderr:
        if line.startswith("epoch 3/"):
            process.kill()
            break
    process.wait()
    done = train(*options, "--resume", "--quiet")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(output.with_suffix(".json").read_text())["training"]["epochs"]) == 40


@pytest.mark.nightly
def test_two_processes_give_what_one_gives(arguments, tmp_path):
    options = [*arguments, "--epochs", 2, "--device", "cpu"]
    assert train(*options, "--output", tmp_path / "one.safetensors").returncode == 0
    launch = [BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0]
    module = ["-m", "kanoclip.runtime.cli.main", "train"]
    done = train(*options, "--output", tmp_path / "two.safetensors", launcher=[*launch, *module])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2/2") == 1, "only the main process talks"
    records = [json.loads((tmp_path / name).read_text())["training"]["epochs"] for name in ("one.json", "two.json")]
    for one, two in zip(*records, strict=True):
        assert one["pictures"] == two["pictures"] == 24
        for part in ("loss", "kd", "global", "local"):
            assert one[part] == pytest.approx(two[part], abs=2e-4)
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=2e-4, rtol=0)
    done = train(*options, "--output", tmp_path / "x.safetensors", "--batch-size", 3, launcher=[*launch, *module])
    assert done.returncode != 0
    assert "a batch of 3 cannot be shared out among 2 processes" in done.stderr


def test_tensorboard_and_reading_processes(arguments, tmp_path):
    done = train(
        *arguments[:-2],
        *("--no-cache", "--augment", "--workers", 1, "--epochs", 1, "--tensorboard", tmp_path / "board"),
        *("--output", tmp_path / "c.safetensors", "--amp", "bf16", "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr
    assert list((tmp_path / "board").rglob("events.out.tfevents.*"))


def test_bad_command_lines(arguments, root, tmp_path):
    output = tmp_path / "c.safetensors"
    rows = [
        (["--root", root], 2, "--dataset"),
        ([*arguments, "--output", tmp_path / "c.pt"], 2, ".safetensors"),
        ([*arguments, "--backbone", "resnet"], 2, "resnet", "nano"),
        ([*arguments, "--no-knpl", "--no-bicmci", "--no-conv-adapter"], 2, "kanoclip-eval --prompts template"),
        ([*arguments, "--no-cache"], 2, "--cache", "--no-cache"),
        ([*arguments, "--output", output, "--resume"], 2, "c.state.safetensors", "--resume"),
        ([*arguments, "--lr-prompts", "nan"], 2, "lr_prompts"),
        ([*arguments, "--kd-margin", 3], 2, "kd_margin 3", "0 to 2"),
        ([*arguments, "--kd-form", "eq2"], 2, "--kd-form", "printed", "anchored"),
        ([*arguments, "--device", "cuda"], 1, "--device cpu"),
        ([*arguments, "--category", "bolt"], 1, "bolt", "hazelnut"),
        (["--dataset", "mvtec", "--root", tmp_path / "nowhere", "--backbone", "random-tiny"], 1, "nowhere"),
        ([*arguments, "--knowledge", tmp_path / "none.json"], 1, "none.json"),
        ([*arguments, "--cache", "/dev/null/x"], 1, "/dev/null/x", "--no-cache"),
    ]
    output.with_suffix(".txt").write_text("")
    for given, code, *words in rows:
        refused(train_here(*given, cwd=tmp_path), code, *words)
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_existing_checkpoint_is_not_overwritten_unasked(arguments, tmp_path):
    output = tmp_path / "c.safetensors"
    output.write_bytes(b"precious")
    refused(train_here(*arguments, "--output", output), 2, output, "--overwrite")
    assert output.read_bytes() == b"precious"


def test_full_disk_for_the_checkpoint(arguments, tmp_path):
    """A limit on the size of files stands for the disk: the cache gives up, the state and the checkpoint say so."""
    command = [str(part) for part in [BIN / "kanoclip-train", *arguments, "--output", tmp_path / "c.safetensors"]]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 100; exec "$@"', "-", *command], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: cannot save") and "--resume" in last
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.safetensors"))


def test_help_shows_an_example():
    start = time.perf_counter()
    done = train("--help")
    assert done.returncode == 0 and "accelerate launch" in done.stdout
    assert "--kd-margin" in done.stdout and "--kd-form" in done.stdout
    assert time.perf_counter() - start < 5, "help does not load torch"
