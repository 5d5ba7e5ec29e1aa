"""A whole suite on small datasets: every row, both resolutions, table 3, and the published rows beside them."""

from __future__ import annotations

import contextlib
import io
import json

import cv2
import numpy as np
import pytest

from kanoclip.runtime.cli.terminal.console import Console
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.checkpoint import build_model, save_checkpoint
from kanoclip.train.evaluation.evaluate import EvaluationConfig
from kanoclip.train.evaluation.suite.command import run_suite
from kanoclip.train.evaluation.suite.file import read_suite
from kanoclip.train.evaluation.suite.methods import open_checkpoint
from kanoclip.train.evaluation.suite.tables import suite_json, suite_markdown
from kanoclip.train.model.kanoclip import ModelConfig


def image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("suite")
    for number in range(3):
        image(root / "mvtec" / "nut" / "test" / "good" / f"{number}.png", number)
        image(root / "mvtec" / "nut" / "test" / "bad" / f"{number}.png", 10 + number)
        mask = root / "mvtec" / "nut" / "ground_truth" / "bad" / f"{number}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(mask), np.pad(np.full((9, 9), 255, np.uint8), ((4, 27), (4, 27))))
        image(root / "headct" / "test" / "good" / f"{number}.png", 20 + number)
        image(root / "headct" / "test" / "bad" / f"{number}.png", 30 + number)
    (root / "rows").mkdir()
    for name, shape in (("a", {}), ("rows/row2", {"vv": False, "bicmci": False, "conv_adapter": False})):
        loaded = build_model(ModelConfig("random-tiny", (48, 48), **shape), "none")
        save_checkpoint(root / f"{name}.safetensors", loaded.model, loaded.weights)
    (root / "paper.toml").write_text(
        'backbone = "random-tiny"\nweights = "none"\nsizes = [48, 64]\nbaselines = ["clip", "clip-ac", "winclip"]\n'
        'sigma = 1.5\n[checkpoints]\ndefault = "a.safetensors"\n[roots]\nmvtec = "mvtec"\nheadct = "headct"\n'
        '[ablation]\nmvtec = "rows"\n'
    )
    return root


def test_all_rows_stand_beside_the_published_ones(folder):
    out = io.StringIO()
    console = Console(file=out, width=200)
    suite = read_suite(folder / "paper.toml")
    found = run_suite(suite, EvaluationConfig(4), "cpu", console, lambda total: contextlib.nullcontext(lambda: None))
    titles = [row.title for row in found.rows]
    assert titles == [f"{m}, {s} px" for m in ("CLIP", "CLIP-AC", "WinCLIP", "KAnoCLIP") for s in (48, 64)]
    assert all(list(row.results) == ["mvtec", "headct"] for row in found.rows)
    text = suite_markdown(found)
    lines = text.splitlines()
    (ours,) = [line for line in lines if line.startswith("| KAnoCLIP, 64 px (ours)") and line.count("|") == 8][:1]
    mean = found.rows[-1].results["mvtec"].mean
    assert f"{100 * mean['image_auroc']:.1f} / {100 * mean['pixel_auroc']:.1f}" in ours and "| - |" in ours
    # The paper's own figures and the later ones, in the right columns.
    assert "| KAnoCLIP | 93.1 / 94.3 | 83.8 / 97.7 |" in text
    assert "| AnomalyVFM | 96.4 / 92.0 | 92.9 / 95.8 | - | - | - | - |" in text
    assert "| EdgeZSAD | 91.6 / - | 88.2 / - |" in text and "| AnomalyCLIP | 91.5 / 91.1 |" in text
    assert "visa, mpdd, btad, sdd, dagm, brainmri" in text and "visa: no folder" in out.getvalue()
    assert "so NOT comparable: mvtec\n" in text
    assert "rows/row3.safetensors: not there" in out.getvalue()
    assert [row.name for row, _ in found.ablation["mvtec"]] == ["row1", "row2"] and "## Table 3: mvtec" in text
    record = json.loads(json.dumps(suite_json(found, {}), allow_nan=False))
    assert record["rows"]["WinCLIP, 64 px"]["headct"]["mean"]["pixel_auroc"] is None and len(record["missing"]) == 10


def test_sigma_and_size_change_a_checkpoints_map_as_they_should(folder, random):
    from kanoclip.runtime.detect.reference.smoothing import bilinear_matrix, gaussian_matrix

    frame = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    predictor = open_checkpoint(folder / "a.safetensors", "none", 64, 0.7, "cpu")
    ((smoothed, _),) = predictor.predict([frame], "nut")
    assert smoothed.shape == (64, 64) and predictor.model.tower.grid == (8, 8)
    rows = gaussian_matrix(64, 0.7) @ bilinear_matrix(64, 8)
    np.testing.assert_allclose(predictor.model.head.smoothing.k_rows.numpy(), rows, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"a.safetensors"', '"paper.toml"', "paper.json is missing: a checkpoint is"),
        ("sizes = [48, 64]", "sizes = [48, 50]", "image size 50x50 is not a multiple of the patch size 8"),
        ('backbone = "random-tiny"', 'backbone = "rn50"', "rn50 does not suit V-V attention"),
        ('backbone = "random-tiny"', 'backbone = "nano"', "48x48 does not suit a convolutional stem"),
        ('weights = "none"', 'weights = "own.pt"', r"no weights file .*own\.pt"),
        ('headct = "headct"', 'headct = "rows"', "rows is not laid out as headct"),
    ],
)
def test_what_is_wrong_with_a_later_row_is_said_before_the_first_is_measured(folder, old, new, expected):
    text = (folder / "paper.toml").read_text()
    assert old in text
    (folder / "wrong.toml").write_text(text.replace(old, new))
    out = io.StringIO()
    with pytest.raises(KanoclipError, match=expected) as caught:
        run_suite(read_suite(folder / "wrong.toml"), EvaluationConfig(4), "cpu", Console(file=out), unmeasured)
    assert str(caught.value).startswith(f"{folder / 'wrong.toml'}: ") and "\n" not in str(caught.value)


def unmeasured(total):
    raise AssertionError(f"{total} images are measured")
