from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.model.stem.efficientnet import Trunk, Variant
from kanoclip.train.model.stem.stem import ConvStem, StemConfig
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.scenes.scene import Recipe, generate
from kanoclip.train.nano.stem_statistics import load_stem, main, new_stem, set_statistics, trunk_pixels

STATISTICS = ("mean", "std", "descriptor_mean", "descriptor_std", "descriptor_basis")


@pytest.fixture
def stem(small_nano, stem_file):
    return load_stem(stem_file)


def test_pixels_are_rgb_in_the_trunks_normalisation():
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    got = trunk_pixels(frames)
    assert got.shape == (2, 3, 4, 6) and got.dtype == torch.float32
    for channel in range(3):
        want = (frames[..., 2 - channel].astype(np.float32) - 127) / 128
        np.testing.assert_array_equal(got[:, channel].numpy(), want)


def test_statistics_standardise_the_images_that_they_were_taken_from(stem):
    set_statistics(stem, None, 500, images=8)
    frames = np.stack([generate(Recipe(size=64), 500, index).image for index in range(8)])
    features = stem.read_scaled(trunk_pixels(frames))
    rows = stem.standardised(features).flatten(0, 1)
    assert rows.mean(0).abs().max() < 1e-3
    deviations = rows.std(0, correction=0)
    assert deviations.max() <= 1.001 and deviations.median() > 0.9, "a channel that never moves stays small"
    coarse = features.coarse.permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(stem.descriptor_mean[-192:], coarse.mean(0), rtol=1e-4, atol=1e-4)
    middle = features.middle.permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(stem.descriptor_mean[40:232], middle.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(stem.descriptor_std[40:232], middle.std(0, correction=0) + 1e-3, rtol=1e-3, atol=1e-4)


def test_the_basis_holds_most_of_the_coarse_stages_variance(stem):
    set_statistics(stem, None, 500, images=12)
    basis = stem.descriptor_basis
    torch.testing.assert_close(basis @ basis.T, torch.eye(32), rtol=0, atol=1e-4)
    frames = np.stack([generate(Recipe(size=64), 500, index).image for index in range(12)])
    coarse = stem.read_scaled(trunk_pixels(frames)).coarse.permute(0, 2, 3, 1).flatten(0, 2)
    standardised = (coarse - stem.descriptor_mean[-192:]) / stem.descriptor_std[-192:]
    kept = (standardised @ basis.T).square().sum() / standardised.square().sum()
    best = torch.linalg.svdvals(standardised).square()
    assert kept == pytest.approx(float(best[:32].sum() / best.sum()), rel=1e-3)
    along = (standardised @ basis.T).square().sum(0)
    assert bool((along[:-1] >= along[1:] * 0.999).all()), "the most of it first"


def test_statistics_repeat_by_seed_and_photographs_count(stem, stem_file, photo_folder):
    photos = Photos.from_folder(photo_folder)

    def measured(taken, seed):
        other = load_stem(stem_file)
        set_statistics(other, taken, seed, images=4)
        return [other.get_buffer(name) for name in STATISTICS]

    first = measured(photos, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, measured(photos, 1), strict=True))
    assert not torch.equal(first[0], measured(None, 1)[0]) and not torch.equal(first[0], measured(photos, 2)[0])


def test_a_stem_is_read_back_without_its_projection(small_nano, stem_file):
    stem, stored = load_stem(stem_file), load_file(stem_file)
    state = stem.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stored.items())
    assert set(state) - set(stored) == {"token_project.weight", "token_project.bias"}
    assert torch.equal(state["token_project.weight"], new_stem().token_project.weight)
    assert not stem.training


def refused(path):
    with pytest.raises(TrainingError) as caught:
        load_stem(path)
    said = str(caught.value)
    assert "\n" not in said and str(path) in said
    return said


def test_bad_stem_files_are_refused(small_nano, stem_file, tmp_path):
    path = tmp_path / "s.safetensors"
    assert "is no stem" in refused(path) and "kanoclip.train.nano.make makes it" in refused(path)
    content = stem_file.read_bytes()
    for cut in (b"", content[:5], content[:1000], content[:-1], b"x" * 5000):
        path.write_bytes(cut)
        assert "is no stem" in refused(path)
    lite2 = ConvStem(StemConfig(Variant.LITE2, 320), 64, (64, 64)).state_dict()
    save_file({name: value for name, value in lite2.items() if not name.startswith("token_project.")}, path)
    assert "is a stem of another variant" in refused(path)
    tensors = load_file(stem_file)
    save_file({**tensors, "more": torch.zeros(1)}, path)
    assert "another variant (more)" in refused(path)
    save_file({**tensors, "mean": torch.zeros(3)}, path)
    assert "another variant (mean)" in refused(path)
    del tensors["std"]
    save_file(tensors, path)
    assert "another variant (std)" in refused(path)


def test_a_backbone_without_a_stem_is_refused():
    with pytest.raises(TrainingError, match="random-tiny has no convolutional stem"):
        new_stem("random-tiny")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_writes_a_stem_that_is_read_back(small_nano, stem_file, tmp_path, photo_folder):
    trunk = {name[6:]: value for name, value in load_file(stem_file).items() if name.startswith("trunk.")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    output = tmp_path / "stem.safetensors"
    done = run("--trunk", tmp_path / "trunk.safetensors", "--photos", photo_folder, "--images", 3, "--output", output)
    assert done.exit_code == 0, done.output
    stem = load_stem(output)
    assert torch.equal(stem.trunk.first.conv.weight, trunk["first.conv.weight"])
    assert stem.mean.any() and not torch.equal(stem.std, torch.ones_like(stem.std))


def test_the_command_refuses_in_one_line(small_nano, tmp_path):
    output = tmp_path / "stem.safetensors"
    save_file(Trunk(Variant.LITE1).state_dict(), tmp_path / "lite1.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    for name in ("lite1.safetensors", "cut.safetensors", "none.safetensors"):
        done = run("--trunk", tmp_path / name, "--output", output)
        assert done.exit_code == 1 and f"{name} is no trunk of this variant" in done.output
        assert done.output.count("\n") == 1
    save_file(Trunk(Variant.LITE0).state_dict(), tmp_path / "lite0.safetensors")
    done = run("--trunk", tmp_path / "lite0.safetensors", "--photos", tmp_path / "none", "--output", output)
    assert done.exit_code == 1 and "no folder of photographs" in done.output and not output.exists()
