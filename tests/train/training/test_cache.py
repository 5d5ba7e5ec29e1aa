import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import TrainingError
from kanoclip.train.checkpoint import load_checkpoint
from kanoclip.train.evaluation.predictor import CheckpointPredictor
from kanoclip.train.model.kanoclip import to_pixels
from kanoclip.train.model.towers.clip_vv import ImageFeatures
from kanoclip.train.training.cache import FeatureCache, features_shape, pack, tower_key, unpack
from kanoclip.train.weights import CHECKPOINT, packaged

EXAMPLES = Path(__file__).parents[3] / "examples" / "hazelnut_toy" / "test"
SHAPE = (9, 4)
FILE = 2 * 9 * 4 + 128


def features(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).half()


def open_cache(root, name="one", limit=2**30):
    return FeatureCache(root, {"tower": name}, SHAPE, limit)


def test_round_trip_survives_reopening(tmp_path):
    cache = open_cache(tmp_path)
    assert cache.load("a") is None
    cache.store("a", features(1))
    for reader in (cache, open_cache(tmp_path)):
        got = reader.load("a")
        assert got.dtype == torch.float16
        assert torch.equal(got, features(1))
    assert (cache.use.hits, cache.use.misses, cache.use.note) == (1, 1, None)


def test_a_file_is_as_large_as_the_cache_reckons(tmp_path):
    cache = open_cache(tmp_path)
    cache.store("a", features(1))
    assert [path.stat().st_size for path in tmp_path.glob("*/*.npy")] == [FILE]


def test_another_tower_sees_nothing(tmp_path):
    open_cache(tmp_path, "one").store("a", features(1))
    assert open_cache(tmp_path, "two").load("a") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(FILE)),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\x93NUMPY" + b"x" * 100),
        lambda path: np.save(path, np.zeros((9, 5), np.float16)),
        lambda path: np.save(path, np.zeros(SHAPE, np.float32)),
        lambda path: np.save(path, np.array([{}], dtype=object)),
    ],
    ids=["empty", "zeros", "cut", "noise", "shape", "dtype", "pickle"],
)
def test_a_damaged_file_is_a_miss_that_can_be_stored_again(tmp_path, damage):
    cache = open_cache(tmp_path)
    cache.store("a", features(1))
    (path,) = tmp_path.glob("*/*.npy")
    damage(path)
    assert cache.load("a") is None
    cache.store("a", features(2))
    assert torch.equal(cache.load("a"), features(2))


def test_limit_ends_storing_and_says_so(tmp_path):
    cache = open_cache(tmp_path, limit=2 * FILE)
    for index in range(4):
        cache.store(str(index), features(index))
    assert [cache.load(str(index)) is not None for index in range(4)] == [True, True, False, False]
    assert "--cache-size" in cache.use.note
    assert str(tmp_path) in cache.use.note


def test_other_towers_make_room_the_longest_unused_first(tmp_path):
    for name, age in (("old", 300), ("new", 100)):
        cache = open_cache(tmp_path, name)
        cache.store("a", features(1))
        stamp = time.time() - age
        os.utime(cache.folder / "key.json", (stamp, stamp))
    open_cache(tmp_path, "old")  # used again: now `new` is the oldest
    cache = open_cache(tmp_path, "mine", limit=2 * FILE)
    cache.store("b", features(2))
    assert open_cache(tmp_path, "new").load("a") is None
    assert open_cache(tmp_path, "old").load("a") is not None
    assert cache.load("b") is not None and cache.use.note is None


def test_full_disk_ends_storing_and_leaves_what_is_there(tmp_path, monkeypatch):
    cache = open_cache(tmp_path)
    cache.store("a", features(1))

    def full(file, array):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    cache.store("b", features(2))
    monkeypatch.undo()
    assert "disk is full" in cache.use.note
    assert torch.equal(cache.load("a"), features(1))
    assert cache.load("b") is None
    assert not list(tmp_path.glob("*/*.part"))
    cache.store("b", features(2))
    assert cache.load("b") is None, "it does not try again for every image"


def test_killed_writer_leaves_nothing_that_is_read(tmp_path):
    script = f"""
import os, signal, sys, torch, numpy
from pathlib import Path
from kanoclip.train.training.cache import FeatureCache
cache = FeatureCache(Path({str(tmp_path)!r}), {{"tower": "one"}}, (9, 4), 2**30)
def killed(file, array):
    file.write(b"x" * 150); file.flush(); os.kill(os.getpid(), signal.SIGKILL)
numpy.save = killed
cache.store("a", torch.zeros(9, 4).half())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert len(list(tmp_path.glob("*/*.part"))) == 1
    cache = open_cache(tmp_path)
    assert cache.load("a") is None
    assert not list(tmp_path.glob("*/*.part"))


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"--no-cache") as caught:
        open_cache(tmp_path / "file" / "cache")
    assert str(tmp_path / "file" / "cache") in str(caught.value)


def test_pack_keeps_directions_and_cannot_overflow(normal):
    image = ImageFeatures(tuple(normal(2, 6, 5) * 1e6 for _ in range(4)), normal(2, 5) * 1e-3)
    packed = pack(image)
    assert packed.shape == (2, 25, 5) and packed.dtype == torch.float16
    back = unpack(packed, 6)
    assert back.distance is None
    for got, given in zip((*back.patches, back.global_token), (*image.patches, image.global_token), strict=True):
        torch.testing.assert_close(got, torch.nn.functional.normalize(given, dim=-1), atol=1e-3, rtol=0)


def test_a_stems_distances_travel_with_the_tokens(normal):
    distance = normal(2, 6).abs() * 5
    image = ImageFeatures(tuple(normal(2, 6, 5) for _ in range(4)), normal(2, 5), distance=distance)
    packed = pack(image)
    assert packed.shape == (2, 27, 5), "six distances fill two rows of five"
    back = unpack(packed, 6)
    torch.testing.assert_close(back.distance, distance, atol=1e-2, rtol=1e-3)
    torch.testing.assert_close(back.global_token, torch.nn.functional.normalize(image.global_token), atol=1e-3, rtol=0)


def test_what_is_read_back_is_within_the_stated_bound(tmp_path):
    """docs/training.md, "The feature cache": nano on photographs, beside what `kanoclip-eval` computes."""
    predictor = CheckpointPredictor(load_checkpoint(packaged(CHECKPOINT)), "cpu", "nano")
    model, tower = predictor.model, predictor.model.tower
    images = [cv2.imread(str(path)) for path in sorted(EXAMPLES.glob("*/*"))[::4]]
    expected = predictor.predict(images, "hazelnut")
    cache = FeatureCache(tmp_path, tower_key(tower, "no"), features_shape(tower), 2**30)
    with torch.no_grad():
        frames = torch.from_numpy(np.stack([resize(image, *tower.size) for image in images]))
        fresh = tower(to_pixels(frames, tower.normalisation))
        for number, features in enumerate(pack(fresh)):
            cache.store(str(number), features)
        stored = [cache.load(str(number)) for number in range(len(images))]
        back = unpack(torch.stack(stored), tower.grid[0] * tower.grid[1])
        for one, two in zip((*fresh.patches, fresh.global_token), (*back.patches, back.global_token), strict=True):
            difference = (torch.nn.functional.normalize(one, dim=-1) - two).norm(dim=-1)
            assert 0 < difference.max() < 2**-11
        torch.testing.assert_close(back.distance, fresh.distance, rtol=2**-11, atol=1e-6)
        text = model.text_features(["hazelnut"])
        output = model.head(back, text, model.head.text_states(text))
    assert len(images) == 6
    for number, (anomaly_map, score) in enumerate(expected):
        assert np.abs(output.map[number].numpy() - anomaly_map).max() < 1e-3
        assert float(output.score[number]) == pytest.approx(score, abs=1e-3)


def test_key_follows_all_that_changes_features(make_model):
    base = make_model().tower
    key = tower_key(base, "no")
    assert tower_key(make_model().tower, "no") == key
    other = make_model().tower
    with torch.no_grad():
        other.blocks[1].fc.weight[0, 0] += 1e-3
    keys = [
        tower_key(other, "no"),
        tower_key(base, "bf16"),
        tower_key(make_model(vv=False).tower, "no"),
        tower_key(make_model(global_token="local").tower, "no"),
        tower_key(make_model(image_size=(64, 48)).tower, "no"),
    ]
    assert all(one != key for one in keys)


def test_shape_of_features(make_model, normal):
    model = make_model()
    image = model.tower(normal(1, 3, 48, 48))
    assert tuple(pack(image).shape[1:]) == features_shape(model.tower)
