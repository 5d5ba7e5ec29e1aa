import hashlib
from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import DataError, TrainingError
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.training.images import EpochOrder, TrainingSet, scan

SIZE = (48, 48)


def read(root, **options):
    return scan(open_dataset("mvtec", root, **options), SIZE, lambda: None)


def test_scan_knows_every_image(tree):
    images = read(tree)
    assert len(images) == 18
    assert [(p.class_index, p.sample.anomalous) for p in images].count((0, True)) == 4
    for image in images:
        content = image.sample.image.read_bytes()
        assert image.digest == hashlib.blake2b(content, digest_size=16).hexdigest()
        assert image.known and (image.mask is not None) == image.sample.anomalous


def test_scan_tells_of_every_image(tree):
    ticks = []
    scan(open_dataset("mvtec", tree), SIZE, lambda: ticks.append(1))
    assert len(ticks) == 18


def test_item_is_image_and_mask_at_model_size(tree):
    images = read(tree, categories=("hazelnut",))
    items = TrainingSet(images, SIZE, None, None)
    index = next(i for i, image in enumerate(images) if image.sample.anomalous)
    item = items[3, index]
    sample = images[index].sample
    assert item.features is None and item.frame.shape == (48, 48, 3) and item.frame.dtype == torch.uint8
    whole = cv2.imread(str(sample.mask), cv2.IMREAD_GRAYSCALE) > 0
    # Every model pixel that an anomalous pixel of the file falls into counts (64 -> 48).
    expected = np.zeros(SIZE, bool)
    for y, x in zip(*np.nonzero(whole), strict=True):
        rows = {int(y * 48 / 64), int(np.nextafter((y + 1) * 48 / 64, 0))}
        columns = {int(x * 48 / 64), int(np.nextafter((x + 1) * 48 / 64, 0))}
        expected[np.ix_(sorted(rows), sorted(columns))] = True
    assert (item.mask.numpy() > 0).sum() == pytest.approx(expected.sum(), abs=2)
    assert not ((item.mask.numpy() > 0) & ~expected).any()


def test_collation_keeps_the_order(tree):
    images = read(tree)
    items = TrainingSet(images, SIZE, None, None)
    wanted = [7, 0, 16, 7]
    batch = items.collate([items[0, index] for index in wanted])
    assert batch.indices.tolist() == wanted and batch.fresh.tolist() == [0, 1, 2, 3] and len(batch.cached) == 0
    assert batch.class_index.tolist() == [images[i].class_index for i in wanted]
    assert batch.labels.tolist() == [float(images[i].sample.anomalous) for i in wanted]
    assert torch.equal(batch.frames[0], batch.frames[3]) and not torch.equal(batch.frames[0], batch.frames[1])
    assert batch.masks.any(dim=(1, 2)).tolist() == [bool(label) for label in batch.labels]


def test_augmentation_is_decided_by_seed_epoch_and_image(tree):
    images = read(tree)
    one, other = TrainingSet(images, SIZE, None, 1), TrainingSet(images, SIZE, None, 2)
    assert torch.equal(one[0, 3].frame, one[0, 3].frame)
    assert not torch.equal(one[0, 3].frame, one[1, 3].frame)
    assert not torch.equal(one[0, 3].frame, other[0, 3].frame)
    index = next(i for i, image in enumerate(images) if image.sample.anomalous)
    plain = TrainingSet(images, SIZE, None, None)[0, index].mask
    for epoch in range(6):
        mask = one[epoch, index].mask
        assert mask.sum() == plain.sum()
        assert any(torch.equal(turned, mask) for k in range(4) for turned in _turns(plain, k))


def _turns(mask, k):
    turned = torch.rot90(mask, k)
    return turned, turned.flip(1)


def test_augmentation_and_cache_exclude_each_other(tree):
    with pytest.raises(TrainingError, match="augmented"):
        TrainingSet([], SIZE, object(), 1)


@pytest.mark.parametrize(("gone", "kind"), [("good", "normal"), ("colour", "anomalous")])
def test_one_kind_alone_cannot_be_learned_from(tmp_path, write_tree, gone, kind):
    write_tree(tmp_path, "nut")
    for path in (tmp_path / "nut" / "test" / gone).glob("*"):
        path.unlink()
    for path in (tmp_path / "nut" / "ground_truth" / "colour").glob("*" if gone == "colour" else "none"):
        path.unlink()
    with pytest.raises(TrainingError, match=f"no {kind} image"):
        read(tmp_path)


@pytest.mark.parametrize("folder", ["test/good", "test/colour", "ground_truth/colour"])
def test_damaged_file_is_named_before_training(tmp_path, write_tree, folder):
    write_tree(tmp_path, "nut")
    path = sorted((tmp_path / "nut" / folder).glob("*"))[1]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)


def test_mask_of_another_size_is_named(tmp_path, write_tree):
    write_tree(tmp_path, "nut")
    path = sorted((tmp_path / "nut" / "ground_truth" / "colour").glob("*"))[0]
    cv2.imwrite(str(path), np.zeros((64, 32), np.uint8))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)


def test_anomalous_image_without_a_mask_is_not_called_normal(tmp_path, write_tree):
    write_tree(tmp_path, "nut")
    sorted((tmp_path / "nut" / "ground_truth" / "colour").glob("*"))[0].unlink()
    unknown = [image for image in read(tmp_path) if not image.known]
    assert len(unknown) == 1 and unknown[0].sample.anomalous
    images = read(tmp_path)
    items = TrainingSet(images, SIZE, None, None)
    assert items.collate([items[0, i] for i in range(len(images))]).known.sum() == len(images) - 1


@given(length=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_order_shows_every_image_and_fills_the_last_batch(length, batch, seed, epoch):
    order = EpochOrder(length, batch, seed)
    order.begin(epoch, 0)
    batches = list(order)
    assert len(batches) == len(order)
    assert all(len(one) == batch for one in batches)
    assert {e for one in batches for e, _ in one} == {epoch}
    seen = Counter(index for one in batches for _, index in one)
    assert set(seen) == set(range(length))
    assert max(seen.values()) - min(seen.values()) <= 1
    for start in range(len(order)):
        order.begin(epoch, start)
        assert list(order) == batches[start:]
