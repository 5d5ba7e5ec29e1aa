"""`kanoclip-export` as a person runs it: in a subprocess, on the example photographs, well and badly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kanoclip.export.graph import DeployGraph
from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.cli.main import invoke
from kanoclip.train.checkpoint import build_model, load_checkpoint, save_checkpoint
from kanoclip.train.model.kanoclip import ModelConfig
from kanoclip.train.weights import CHECKPOINT, packaged

from .helpers import in_process

EXPORT = Path(sys.executable).with_name("kanoclip-export")
RUN = Path(sys.executable).with_name("kanoclip-run")
DOCTOR = Path(sys.executable).with_name("kanoclip-doctor")


def export(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([EXPORT, *arguments], cwd=folder, capture_output=True, text=True, timeout=540)
    assert done.returncode == code, done.stderr
    return done


def refused(folder: Path, *arguments: str, code: int = 1) -> str:
    """Runs an export here that must fail: one line on stderr, no traceback, nothing written."""
    before = sorted(folder.rglob("*"))
    done = in_process("kanoclip-export", *arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    assert sorted(folder.rglob("*")) == before
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:] and "Traceback" not in done.stderr, done.stderr  # after the steps until there
    return lines[-1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("default")
    return folder, export(folder, "--fp16")


def test_fp16_alone_exports_the_shipped_checkpoint(exported):
    folder, done = exported
    assert [p.name for p in folder.iterdir()] == ["nano.kanoclip"]
    manifest = Bundle.open(folder / "nano.kanoclip").manifest
    assert (manifest.model.backbone, manifest.precision, manifest.classes) == ("nano", "fp16", ("object",))
    assert manifest.model.trained and manifest.model.weights == "packaged"
    assert "UNTRAINED" not in done.stderr
    assert manifest.parity["map_drift"] <= 2e-2 and manifest.parity["pictures"] == 8
    assert manifest.parity["auroc_torch"] is not None
    shipped = Bundle.open(shipped_bundle()).manifest
    assert manifest.model.checkpoint_sha256 == shipped.model.checkpoint_sha256
    assert manifest.model.weights_sha256 == shipped.model.weights_sha256


def test_what_was_exported_runs_on_a_camera_sized_frame(exported):
    folder, _ = exported
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    with Detector.load(folder / "nano.kanoclip", backend="onnxruntime") as detector:
        found = detector(frame)
    assert found.map.shape == (256, 256) and 0 <= found.map.min() <= found.map.max() <= 1
    assert 0 <= found.score <= 1 and found.score == pytest.approx(found.score)


def test_run_finds_the_exported_bundle_by_itself(exported, tmp_path):
    folder, _ = exported
    images = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test" / "good"
    # `auto` would try every engine on the new graph first.
    command = [RUN, "--source", str(images), "--json", "--backend", "onnxruntime"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 6
    assert "untrained" not in done.stderr


@pytest.mark.nightly
def test_the_shipped_checkpoint_takes_other_class_names(tmp_path):
    export(tmp_path, "--class", "ceramic tile", "--fp16", "--output", "tile.kanoclip")
    assert Bundle.open(tmp_path / "tile.kanoclip").manifest.classes == ("ceramic tile",)
    images = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test"
    run = [RUN, "--source", str(images), "--class", "ceramic tile", "--json"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout)["frames"] > 6, done.stderr


def test_other_class_names_are_other_texts_of_the_shipped_checkpoint():
    """The same without the export, which is that of any class."""
    model = load_checkpoint(packaged(CHECKPOINT)).model
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, *model.config.image_size, 3), np.uint8))
    with torch.no_grad():
        one, other = (DeployGraph(model, [name], "fp32").eval()(frame)[0] for name in ("object", "ceramic tile"))
    assert one.isfinite().all() and other.isfinite().all() and (one - other).abs().max() > 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize(
    "flags",
    [
        ["--weights", "none"],
        ["--prompts", "template"],
        ["--no-vv"],
    ],
)
def test_without_the_shipped_checkpoint_the_head_is_untrained(tmp_path, flags):
    done = export(tmp_path, *flags, "--parity-limit", "1", "--json")
    model = json.loads(done.stdout)["model"]
    assert model["checkpoint_sha256"] is None
    assert model["weights"] == ("seeded:0" if "--weights" in flags else "packaged")
    assert ("UNTRAINED" in done.stderr) == (not model["trained"])


@pytest.mark.parametrize(
    "precision", ["int8-cpu", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("int8", "fp8"))]
)
def test_a_quantised_graph_is_calibrated_on_the_images_that_are_named(tmp_path, precision):
    good = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test" / "good"
    # Compared on good images only: which of a few images random weights like more is no matter of precision.
    images = ["--calibration-images", str(good), "--parity-images", str(good)]
    done = in_process("kanoclip-export", "--backbone", "random-tiny", f"--{precision}", *images, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(tmp_path / "random-tiny.kanoclip")
    assert bundle.manifest.precision == precision
    assert bundle.manifest.opset == (18 if precision == "int8-cpu" else 19)
    choice = bundle.manifest.parity["quantisation"]
    assert choice["blocks"] == 4 and choice["layers"] > 0 and choice["pictures"] == 4
    # Images of one kind have no AUROC; what is lost is said as the map's drift.
    assert bundle.manifest.parity["auroc_torch"] is None and "AUROC" not in done.stderr
    said = " ".join(done.stderr.split())
    assert f"{choice['layers']} layers quantised, the first {choice['blocks_unquantised']} of 4 blocks" in said
    assert f"map {choice['map_drift']:.1e} from the plain one" in said
    assert [path.name for path in sorted(bundle.root.iterdir())] == ["manifest.json", "model.onnx", "samples"]
    with Detector.load(bundle.root) as detector:
        assert 0 <= detector(np.zeros((50, 60, 3), np.uint8)).score <= 1


@pytest.mark.nightly
def test_labelled_images_show_the_accuracy_before_and_after(tmp_path):
    test = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test"
    images = ["--calibration-images", str(test / "good"), "--parity-images", str(test), "--parity-limit", "23"]
    done = export(tmp_path, "--fp8", *images, "--json")
    parity = json.loads(done.stdout)["parity"]
    assert parity["pictures"] == 23, "all that there are, not the gate's few"
    assert abs(parity["auroc_graph"] - parity["auroc_torch"]) <= parity["bounds"]["auroc"]
    said = " ".join(done.stderr.split())
    assert f"AUROC on these: {parity['auroc_torch']:.3f} in torch, {parity['auroc_graph']:.3f} in the graph" in said
    assert parity["quantisation"]["map_drift"] <= parity["quantisation"]["target"]
    size = (tmp_path / "nano.kanoclip" / "model.onnx").stat().st_size
    assert size < 8e6, "a byte a weight: the fp16 graph has 10.8 MB"


@pytest.mark.nightly
def test_a_graph_that_resizes_takes_the_cameras_frame(tmp_path):
    good = Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test" / "good"
    # Compared on good images only: which of a few images random weights like more is no matter of precision.
    common = ["--backbone", "random-tiny", "--fp16", "--parity-images", str(good), "--output"]
    export(tmp_path, *common, "camera.kanoclip", "--camera-size", "640x480")
    export(tmp_path, *common, "plain.kanoclip")
    manifest = Bundle.open(tmp_path / "camera.kanoclip").manifest
    assert manifest.frame_size == (480, 640) and manifest.model.image_size == (48, 48)
    assert 0 <= manifest.parity["resize_drift"] <= 1
    done = subprocess.run([DOCTOR, "camera.kanoclip"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "yes" in done.stdout, done.stderr
    photograph = cv2.imread(str(Path(__file__).parents[2] / "examples" / "hazelnut_toy" / "test" / "colour" / "00.jpg"))
    frame = cv2.resize(photograph, (640, 480))
    found = {}
    for name in ("camera", "plain"):
        with Detector.load(tmp_path / f"{name}.kanoclip") as detector:
            found[name] = [detector(image) for image in (frame, photograph)]  # and one of another size
    for one, other in zip(found["camera"], found["plain"], strict=True):
        assert one.map.shape == (48, 48)
        assert abs(one.score - other.score) < 0.02 and np.abs(one.map - other.map).max() < 0.1


@pytest.mark.nightly
def test_a_triton_repository_beside_the_bundle(tmp_path):
    (tmp_path / "models").mkdir()
    export(
        tmp_path,
        "--backbone",
        "random-tiny",
        "--dynamic-batch",
        "4",
        "--parity-limit",
        "4",
        "--memory-rows",
        "0",
        "--triton",
        "models",
    )
    assert (tmp_path / "models" / "random-tiny" / "1" / "model.onnx").exists()
    assert "max_batch_size: 4" in (tmp_path / "models" / "random-tiny" / "config.pbtxt").read_text()


@pytest.mark.nightly
def test_exporting_again_replaces_the_bundle(exported):
    folder, _ = exported
    export(folder, "--backbone", "random-tiny", "--output", "nano.kanoclip", "--parity-limit", "1")
    assert Bundle.open(folder / "nano.kanoclip").manifest.model.backbone == "random-tiny"


@pytest.mark.nightly
def test_checkpoint_classes_engine_and_dynamic_batch_together(tmp_path):
    loaded = build_model(ModelConfig("random-tiny", (48, 48), conv_adapter=False), "none")
    save_checkpoint(tmp_path / "c.safetensors", loaded.model, loaded.weights)
    arguments = ["--checkpoint", "c.safetensors", "--fp16", "--class", "bolt", "--class", "hex nut"]
    arguments += ["--dynamic-batch", "3", "--parity-limit", "4", "--json", "--output", "b.kanoclip"]
    if importlib.util.find_spec("tensorrt_rtx"):  # wheels for x86-64 only
        arguments += ["--engine", "tensorrt-rtx", "--compute-capability", "8.6,8.9,12.0"]
    manifest = json.loads(export(tmp_path, *arguments).stdout)
    assert manifest["classes"] == ["bolt", "hex nut"] and manifest["inputs"][1]["name"] == "class_index"
    assert manifest["model"]["checkpoint_sha256"] and manifest["model"]["conv_adapter"] is False
    if "--engine" in arguments:
        (engine,) = manifest["engines"]
        assert engine["compute_capabilities"] == ["8.6", "8.9", "12.0"]
        assert manifest["files"][engine["file"]]["size"] > 100_000
    frames = [np.full((60, 80, 3), value, np.uint8) for value in (0, 90, 180, 255)]
    with Detector.load(tmp_path / "b.kanoclip") as detector:
        together = detector.batch(frames, "hex nut")
        alone = [detector(frame, "hex nut") for frame in frames]
    np.testing.assert_allclose([d.score for d in together], [d.score for d in alone], atol=2e-3)


@pytest.mark.nightly
def test_bf16_passes_its_gate_and_is_refused_by_the_cpu(tmp_path):
    export(tmp_path, "--backbone", "random-tiny", "--bf16", "--parity-limit", "2")
    run = [RUN, "--source", str(Path(__file__).parents[2] / "examples"), "--bundle", "random-tiny.kanoclip"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "bf16" in done.stderr and "--fp16" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backbone", "vit-xxl"], ["vit-xxl", "nano"]),
        (["--opset", "12"], ["--opset"]),
        (["--batch", "2", "--dynamic-batch", "4"], ["--dynamic-batch"]),
        (["--compute-capability", "8.6"], ["--engine tensorrt-rtx"]),
        (["--workspace", "64"], ["--workspace needs --engine"]),
        (["--engine", "tensorrt-rtx", "--strip-weights"], ["--strip-weights needs --engine tensorrt."]),
        (["--engine", "tensorrt-rtx", "--compatibility", "ampere-plus"], ["--compatibility needs --engine tensorrt."]),
        (["--engine", "tensorrt", "--compute-capability", "8.6"], ["--compute-capability needs"]),
        (["--compatibility", "turing"], ["ampere-plus"]),
        (["--class", " "], ["--class"]),
        (["--checkpoint", __file__, "--no-vv"], ["--no-vv"]),
        (["--fp64"], ["--fp64"]),
        (["--int8"], ["--int8", "--calibration-images"]),
        (["--int8-cpu"], ["--int8-cpu", "--calibration-images"]),
        (["--int8-cpu", "--calibration-images", ".", "--engine", "tensorrt-rtx"], ["--int8 for an --engine"]),
        (["--fp8"], ["--fp8", "--calibration-images"]),
        (["--fp16", "--calibration-images", "."], ["--calibration-images", "--int8", "--fp8"]),
        (["--fp8", "--calibration-images", ".", "--opset", "18"], ["--fp8", "--opset 19"]),
        (["--int8", "--calibration-images", ".", "--opset", "18"], ["--int8", "--opset 19"]),
        (["--output", "model.onnx"], [".kanoclip"]),
        (["--engine", "tensorrt-rtx", "--compute-capability", "sm86"], ["sm86", "8.6"]),
        (["--camera-size", "1080p"], ["--camera-size", "'1080p' is not WIDTHxHEIGHT"]),
        (["--camera-size", "0x480"], ["--camera-size"]),
        (["--triton", "nowhere"], ["nowhere is not a folder"]),
        (["--checkpoint", "c.safetensors"], ["--checkpoint", "c.safetensors"]),
        (["--parity-images", "nowhere"], ["--parity-images", "nowhere"]),
        (["--int8", "--calibration-images", "nowhere"], ["--calibration-images", "nowhere"]),
    ],
)
def test_wrong_usage(tmp_path, arguments, words):
    line = refused(tmp_path, *arguments, code=2)
    assert all(word in line for word in words), line


def test_a_refusal_from_a_shell(tmp_path):
    """That of the installed command; the others are run in this process."""
    done = export(tmp_path, "--weights", "w.safetensors", code=1)
    assert done.stderr.splitlines()[0] == "loading the model"
    (error,) = done.stderr.splitlines()[1:]
    assert error.startswith("error: ") and "w.safetensors" in error
    assert done.stdout == "" and list(tmp_path.iterdir()) == []


def test_things_that_are_not_there(tmp_path):
    assert "multiple of the patch size" in refused(tmp_path, "--backbone", "random-tiny", "--image-size", "50")
    assert "8.7" in refused(
        tmp_path, "--backbone", "random-tiny", "--fp16", "--engine", "tensorrt-rtx", "--compute-capability", "8.7"
    )


@pytest.mark.nightly
def test_damaged_and_foreign_checkpoints(tmp_path):
    tiny = build_model(ModelConfig("random-tiny", (48, 48)), "none")
    save_checkpoint(tmp_path / "c.safetensors", tiny.model, tiny.weights)
    assert "nano" in refused(tmp_path, "--checkpoint", "c.safetensors", "--backbone", "nano")
    record = json.loads((tmp_path / "c.json").read_text())
    record["config"]["bicmci"] = False
    (tmp_path / "c.json").write_text(json.dumps(record))
    assert "another architecture" in refused(tmp_path, "--checkpoint", "c.safetensors")
    (tmp_path / "c.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:1000])
    record["config"]["bicmci"] = True
    (tmp_path / "c.json").write_text(json.dumps(record))
    assert "c.safetensors" in refused(tmp_path, "--checkpoint", "c.safetensors")


@pytest.mark.nightly
def test_weights_that_overflow_write_no_bundle(tmp_path):
    """A checkpoint whose weights overflow fp16: torch's float32 is fine, the fp16 graph is not."""
    loaded = build_model(ModelConfig("random-tiny", (48, 48)), "none")
    loaded.model.head.stages[0].deformable.value.weight.data.mul_(1e6)
    loaded.model.head.stages[0].deformable_out.weight.data.fill_(1e-6)
    save_checkpoint(tmp_path / "c.safetensors", loaded.model, loaded.weights)
    line = refused(tmp_path, "--checkpoint", "c.safetensors", "--fp16", "--parity-limit", "2")
    assert "drift" in line or "NaN" in line


def test_help_has_an_example(tmp_path):
    assert "kanoclip-export --fp16" in export(tmp_path, "--help").stdout


def test_the_backbones_are_listed_for_people_and_programs(capsys, monkeypatch):
    """In a narrow terminal too: a name that is cut off is none."""
    monkeypatch.setenv("COLUMNS", "40")
    assert invoke("kanoclip-export", "export", ["--list-backbones", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert invoke("kanoclip-export", "export", ["--list-backbones"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(listed) + 1]] == [one["name"] for one in listed]
    vit = next(one for one in listed if one["name"] == "vit-l-14-336")
    assert (vit["size"], vit["licence"]) == (336, "MIT") and 3.5e11 < vit["flops"] < 4e11
    (line,) = [line for line in lines if line.startswith("vit-l-14-336 ")]
    assert line.split()[1:6] == ["336", "304.3", "123.7", "381.9", "MIT"]
