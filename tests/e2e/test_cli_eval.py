"""`kanoclip-eval` as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from .helpers import in_process

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
METRICS = {"image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"}


def run(name, *arguments, **options):
    command = [str(part) for part in (BIN / name, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, **options)


def evaluate(*arguments, **options):
    return run("kanoclip-eval", *arguments, **options)


def evaluate_here(*arguments):
    """In this process, where torch is there already after the first."""
    return in_process("kanoclip-eval", *arguments, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The example photographs in the MVTec tree, shrunk, and a category without masks."""
    root = tmp_path_factory.mktemp("mvtec")
    for path in EXAMPLES.rglob("*"):
        if path.suffix in (".jpg", ".png"):
            image = cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (64, 64), interpolation=cv2.INTER_NEAREST)
            target = (root / "hazelnut" / path.relative_to(EXAMPLES)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), image)
    return ["--dataset", "mvtec", "--root", root]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, data):
    """Trained for a moment, so that the head is not the identity."""
    folder = tmp_path_factory.mktemp("checkpoint")
    options = ["--backbone", "random-tiny", "--epochs", 3, "--lr-modules", "1e-2", "--no-cache", "--quiet"]
    options += ["--class-name", "object", "--output", folder / "c.safetensors"]
    done = in_process("kanoclip-train", *data, *options, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return folder / "c.safetensors"


@pytest.fixture(scope="module")
def bundle(checkpoint):
    """What was learned, exported."""
    path = checkpoint.with_name("c.kanoclip")
    options = ["--checkpoint", checkpoint, "--weights", "none", "--output", path, "--parity-limit", "4"]
    done = in_process("kanoclip-export", *options, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert json.loads((path / "manifest.json").read_text())["model"]["checkpoint_sha256"]
    return path


def test_bundle_and_checkpoint_give_the_same_table(data, bundle, checkpoint, tmp_path):
    """The bundle through the runtime, the checkpoint through torch: what ships is what was trained."""
    engine = ["--backend", "onnxruntime"]  # one that computes in float32, whichever is the fastest
    done = evaluate("--bundle", bundle, *data, "--category", "hazelnut", "--output", tmp_path / "b.json", *engine)
    assert done.returncode == 0, done.stderr
    assert "I-AUROC" in done.stdout and "'object' for hazelnut" in done.stdout
    files = ["--output", tmp_path / "c.json", "--csv", tmp_path / "c.csv", "--markdown", tmp_path / "c.md"]
    more = ["--sheet", tmp_path / "c.jpg", "--compare", "paper", "--class-name", "object", "--batch-size", 5]
    done = evaluate("--checkpoint", checkpoint, "--weights", "none", *data, *files, *more)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("b.json", "c.json"))
    assert list(one["categories"]) == list(two["categories"]) == ["hazelnut"]
    assert set(one["mean"]) == METRICS and one["mean"] == one["categories"]["hazelnut"]
    for name in METRICS:
        assert 0 <= one["mean"][name] <= 1
        assert one["mean"][name] == pytest.approx(two["mean"][name], abs=1e-3), name
    assert (one["model"]["kind"], two["model"]["kind"]) == ("bundle", "checkpoint")
    assert two["paper"]["KAnoCLIP"] == {"image_auroc": 0.931, "pixel_auroc": 0.943}
    assert "NOT comparable" in done.stdout
    assert (tmp_path / "c.md").read_text().count("| hazelnut |") == 1
    assert (tmp_path / "c.csv").read_text().splitlines()[1].startswith("hazelnut,")
    assert cv2.imread(str(tmp_path / "c.jpg")).shape[1] > 1000


def test_a_bundle_needs_no_torch(data, bundle, tmp_path):
    """As with only the extra `cpu` installed."""
    script = f"""
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "open_clip", "onnx"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from kanoclip.runtime.cli.main import invoke
sys.exit(invoke("kanoclip-eval", "eval", {[str(a) for a in ["--bundle", bundle, *data, "--quiet"]]!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, "-c", script.replace("'--bundle'", "'--checkpoint'")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == 1
    assert "kanoclip-edge[" in done.stderr.splitlines()[-1], "the missing extra is named"


@pytest.mark.parametrize("prompts", ["handcrafted", pytest.param("learned", marks=pytest.mark.nightly)])
def test_training_free_baselines(data, prompts, tmp_path):
    options = ["--prompts", prompts, "--backbone", "random-tiny", "--weights", "none", "--output", tmp_path / "o.json"]
    done = evaluate_here(*options, *data)
    assert done.returncode == 0, done.stderr
    assert "SEEDED" in done.stdout
    record = json.loads((tmp_path / "o.json").read_text())
    assert record["trained"] is False and record["model"]["prompts"] == prompts


def test_images_without_masks(data, bundle, tmp_path):
    """Image-level datasets have no pixel metric: null and a dash, never 0."""
    root = tmp_path / "brain"
    for name, folder in (("no", "good"), ("yes", "colour")):
        shutil.copytree(data[3] / "hazelnut" / "test" / folder, root / name)
    options = ["--bundle", bundle, "--dataset", "br35h", "--root", root, "--output", tmp_path / "o.json"]
    done = evaluate(*options, "--compare", "paper")
    assert done.returncode == 0, done.stderr
    mean = json.loads((tmp_path / "o.json").read_text())["mean"]
    assert mean["image_auroc"] is not None
    assert [mean[name] for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")] == [None] * 4
    row = next(line for line in done.stdout.splitlines() if "│ brain" in line)
    assert row.count(" - ") == 4


def test_a_broken_image(data, bundle, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(data[3], root)
    victim = sorted((root / "hazelnut" / "test" / "good").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:99])
    options = ["--bundle", bundle, "--dataset", "mvtec", "--root", root, "--output", tmp_path / "o.json"]
    done = evaluate_here(*options)
    assert done.returncode == 1 and str(victim) in done.stderr.splitlines()[-1] and "--skip-bad" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o.json").exists()
    done = evaluate_here(*options, "--skip-bad")
    assert done.returncode == 1
    assert str(victim) in done.stderr
    assert json.loads((tmp_path / "o.json").read_text())["counts"]["hazelnut"]["normal"] == 5


@pytest.mark.nightly
def test_ablation_trains_what_is_missing_and_measures_every_row(data, tmp_path):
    options = ["--ablation", "--train-dataset", "mvtec", "--train-root", data[3], *data, "--backbone", "random-tiny"]
    options += ["--weights", "none", "--epochs", 1, "--checkpoints", tmp_path / "rows", "--markdown", tmp_path / "t.md"]
    # What is kanoclip-train's own goes through to the training of every row.
    options += ["--kd-margin", 1.9, "--lr-modules", 1e-3, "--amp", "no", "--batch-size", 4, "--no-observed"]
    done = evaluate(*options, "--output", tmp_path / "t.json")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "t.json").read_text())
    assert list(record) == [f"row{i}" for i in range(1, 6)]
    assert all(set(row["mean"]) == METRICS for row in record.values())
    lines = (tmp_path / "t.md").read_text().splitlines()[2:]
    assert [line.count("| x ") for line in lines] == [0, 1, 2, 3, 4]
    assert "66.8" in lines[0] and "94.3" in lines[4]
    configs = [json.loads((tmp_path / "rows" / f"row{i}.json").read_text())["config"] for i in range(2, 6)]
    assert [(c["vv"], c["bicmci"], c["conv_adapter"]) for c in configs] == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    ]
    training = json.loads((tmp_path / "rows" / "row5.json").read_text())["training"]
    assert (training["run"]["kd_margin"], training["run"]["lr_modules"], training["run"]["batch_size"]) == (
        1.9,
        1e-3,
        4,
    )
    assert training["run"]["observed"] is False
    assert set(training["epochs"][0]["kd_active_at"]) == {"first", "last"}
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows").glob("*.safetensors")}
    assert len(stamps) == 4
    done = evaluate(*options)
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr
    assert stamps == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows").glob("*.safetensors")}
    done = evaluate(*options, "--seed", 3)
    assert done.returncode == 1 and "other arguments" in done.stderr and "--checkpoints" in done.stderr


def test_without_a_target_the_shipped_bundle_is_measured(data, tmp_path):
    (tmp_path / "other.kanoclip").mkdir()  # not looked at: figures should not depend on the folder one stands in
    target = tmp_path / "o.json"
    done = evaluate(*data, "--class-name", "object", "--output", target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(target.read_text())
    assert (found["model"]["kind"], found["model"]["name"], found["trained"]) == ("bundle", "nano.kanoclip", True)
    assert "UNTRAINED" not in done.stdout and "SEEDED" not in done.stdout


def test_bad_command_lines(data, bundle, checkpoint, tmp_path):
    both = ["--bundle", bundle, "--checkpoint", checkpoint]
    # What no row could be trained with is said before the first, which is only measured.
    rows_of = ["--ablation", "--train-dataset", "mvtec", "--train-root", data[3], *data, "--backbone", "nano"]
    rows_of += ["--checkpoints", tmp_path / "rows"]
    rows = [
        ([*data, "--weights", "none"], 2, "--weights"),
        ([*data, "--backbone", "nano"], 2, "--backbone"),
        ([*both, *data], 2, "--bundle and --checkpoint exclude each other"),
        (["--prompts", "handcrafted", *data], 2, "--backbone"),
        (["--prompts", "handcrafted", "--backbone", "resnet", *data], 2, "resnet", "nano"),
        (["--bundle", bundle, "--image-size", "99", *data], 2, "--image-size", "bundle"),
        (["--bundle", bundle, "--weights", "none", *data], 2, "--weights"),
        (["--bundle", bundle, "--checkpoints", tmp_path, *data], 2, "--checkpoints is for --ablation"),
        (["--ablation", "--backbone", "nano", *data], 2, "--train-dataset"),
        (["--kd-margin", "1.5", *data], 2, "--kd-margin is for --ablation"),
        ([*rows_of, "--kd-margin", "9"], 2, "kd_margin 9.0 is outside of 0 to 2"),
        ([*rows_of, "--knowledge", tmp_path / "none.json"], 1, "none.json"),
        (["--bundle", bundle, "--windows", *data], 2, "--windows is for --prompts"),
        (["--bundle", bundle, "--references-only", *data], 2, "give --shots or --unlabelled"),
        (["--bundle", bundle, "--sigma", "2", *data], 2, "--sigma"),
        (["--checkpoint", checkpoint, "--tiles", "auto", *data], 2, "--tiles is for bundles"),
        (["--bundle", bundle, "--tiles", "3", *data], 2, "write ROWSxCOLUMNS"),
        (["--dataset", "mvtec"], 2, "--root is missing", "--suite"),
        (["--suite", tmp_path / "none.toml"], 1, "none.toml"),
        (["--suite", tmp_path / "none.toml", "--dataset", "mvtec"], 2, "--dataset is not for --suite"),
        (["--bundle", bundle, "--sheet", tmp_path / "x.gif", *data], 2, ".png"),
        (["--bundle", bundle, "--class-name", " ", *data], 2, "--class-name"),
        (["--bundle", tmp_path / "none.kanoclip", *data], 1, "none.kanoclip"),
        (["--checkpoint", tmp_path / "none.safetensors", *data], 1, "none.safetensors"),
        (["--checkpoint", checkpoint, "--device", "cuda", *data], 1, "--device cpu"),
        (["--bundle", bundle, "--dataset", "mvtec", "--root", tmp_path / "nowhere"], 1, "nowhere"),
        (["--bundle", bundle, "--dataset", "visa", "--root", data[3]], 1, "visa", "mvtec"),
        (["--bundle", bundle, "--dataset", "nonesuch", "--root", data[3]], 1, "nonesuch", "mvtec"),
        (["--bundle", bundle, *data, "--category", "bolt"], 1, "bolt", "hazelnut"),
        (["--bundle", bundle, *data, "--output", "/dev/null/x.json"], 1, "/dev/null/x.json"),
    ]
    for given, code, *words in rows:
        done = evaluate_here(*given)
        assert done.returncode == code, done.stderr
        line = done.stderr.strip()
        assert line.count("\n") == 0 and line.startswith("error: "), line
        assert all(str(word) in line for word in words), line
    assert not (tmp_path / "rows").exists()


def test_help_shows_an_example():
    done = evaluate("--help")
    assert done.returncode == 0 and "kanoclip-eval line3.kanoclip" in done.stdout
