"""Images of a folder, spread and labelled; and tiles by their shape: one grid for all, or two that none suits."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from kanoclip.export.samples import choose_grid, load_samples
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.errors import ExportError, SourceError

FLAG = "--parity-images"


def write(folder, *sizes, suffix=".png"):
    folder.mkdir(exist_ok=True)
    for number, (height, width) in enumerate(sizes):
        image = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{number}{suffix}"), image)
    return folder


def test_samples_are_spread_over_the_folder_and_labelled(examples):
    samples = load_samples(examples, (48, 64), 8)
    assert len(samples) == 8 and all(s.frame.shape == (48, 64, 3) for s in samples)
    assert {s.anomalous for s in samples} == {True, False}
    assert all("ground_truth" not in s.path.parts for s in samples)


def test_images_without_a_good_folder_have_no_label(tmp_path, examples):
    for path in (examples / "test" / "colour").glob("0*.jpg"):
        shutil.copy(path, tmp_path / path.name)
    assert {s.anomalous for s in load_samples(tmp_path, (48, 48), 3)} == {None}


def test_broken_and_missing_images_stop_the_gate(tmp_path):
    with pytest.raises(ExportError, match="no images"):
        load_samples(tmp_path / "missing", (48, 48), 3)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"not an image")
    with pytest.raises(ExportError, match=r"b\.png"):
        load_samples(tmp_path, (48, 48), 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
def test_the_grid_of_images_that_agree(tmp_path, suffix):
    folder = write(tmp_path / "a", (1240, 500), (1270, 510), (1230, 490), suffix=suffix)
    assert choose_grid(folder, 8, (256, 256), 0.2, FLAG) == TileGrid(3, 1, 0.2)


def test_square_images_are_seen_as_a_whole(tmp_path):
    assert choose_grid(write(tmp_path / "a", (300, 300), (310, 300)), 8, (48, 48), 0.15, FLAG) is None


def test_the_smallest_image_decides_how_many_tiles_have_pixels_enough(tmp_path):
    folder = write(tmp_path / "a", (1240, 500), (620, 250))
    assert choose_grid(folder, 8, (256, 256), 0.15, FLAG) == TileGrid(2, 1, 0.15)


def test_images_of_two_shapes_are_named(tmp_path):
    folder = write(tmp_path / "a", (300, 300), (300, 320), (300, 900))
    with pytest.raises(ExportError) as caught:
        choose_grid(folder, 8, (48, 48), 0.15, FLAG)
    assert str(caught.value) == (
        f"no tiles suit both {folder / '2.png'} (900x300 pixels) and {folder / '0.png'} (300x300): name images of one "
        "shape with --parity-images, or the grid, such as --tiles 3x1"
    )
    assert choose_grid(folder, 1, (48, 48), 0.15, FLAG) is None  # only those that the gate looks at count


def test_images_that_are_none(tmp_path):
    with pytest.raises(ExportError, match=r"no images at .*: name a folder or a file with --parity-images"):
        choose_grid(tmp_path / "missing", 8, (48, 48), 0.15, FLAG)
    with pytest.raises(SourceError, match="no images"):
        choose_grid(tmp_path, 8, (48, 48), 0.15, FLAG)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(ExportError, match=r"cannot read .*broken\.png \(the file is empty\)"):
        choose_grid(tmp_path, 8, (48, 48), 0.15, FLAG)


def test_samples_of_the_gate_are_tiles_of_the_models_size(tmp_path):
    folder = write(tmp_path / "a", (150, 50), (154, 50))
    samples = load_samples(folder, (32, 32), 8, tiles=TileGrid(3, 1, 0.25))
    assert [sample.path.name for sample in samples] == ["0.png"] * 3 + ["1.png"] * 3
    assert {sample.frame.shape for sample in samples} == {(32, 32, 3)}
    assert len({sample.frame.tobytes() for sample in samples}) == 6
    write(tmp_path / "b", (2, 50))
    with pytest.raises(ExportError, match=r"0\.png: a frame of 50x2 pixels is too small for 3x1 tiles"):
        load_samples(tmp_path / "b", (32, 32), 8, tiles=TileGrid(3, 1, 0.25))
