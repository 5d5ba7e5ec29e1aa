"""Frames as the graph sees them: what the detector gives, cut as it cuts, unreadable ones by name."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from learning import folder, images

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import IN_GRAPH
from kanoclip.runtime.bundle.manifest.tiles import TileGrid
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.tiles import Tiling
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.errors import CalibrationError
from kanoclip.runtime.ops.learn import observe as module
from kanoclip.runtime.ops.learn.observe import Observer, observe, plain, suited_tiles, views_of
from kanoclip.runtime.sources import open_source


@pytest.fixture(scope="module")
def detector(make_toy_bundle, tmp_path_factory):
    place = make_toy_bundle(tmp_path_factory.mktemp("b") / "toy.kanoclip", grid=(8, 8), memory_rows=64)
    bundle = plain(Bundle.open(place))
    with Detector(bundle, create_backend(bundle, "onnxruntime", "cpu")) as found:
        yield found


def test_a_frame(detector, toy_descriptors):
    (image,) = images(1)
    seen = Observer(detector, "object").look(image)
    assert seen.descriptors.dtype == np.float16 and seen.descriptors.shape == (1, 64, 3)
    np.testing.assert_allclose(seen.descriptors, toy_descriptors(image[None], (8, 8))[None][0], atol=1e-3)
    np.testing.assert_allclose(seen.zero_shot[0], image.mean(2) / 255, atol=1e-5)
    assert seen.views.shape == (0, 1, 64, 3)


def test_tiles_are_those_of_the_detector(detector):
    grid = TileGrid(2, 1, 0.25)
    observer = Observer(detector, "object", grid)
    (image,) = images(1, size=(56, 32))  # just the canvas
    seen = observer.look(image)
    tiles = Tiling(grid, (32, 32)).cut(image)
    assert observer.tiles == grid and seen.descriptors.shape == (2, 64, 3) and seen.zero_shot.shape == (2, 32, 32)
    np.testing.assert_allclose(seen.zero_shot, tiles.mean(3) / 255, atol=1e-5)


def test_views(detector):
    (image,) = images(1)
    seen = Observer(detector, "object", views=("flips", "rotations")).look(image)
    cells = seen.descriptors.reshape(8, 8, 3)
    expected = [cells[:, ::-1], cells[::-1], *(np.rot90(cells, k) for k in (1, 2, 3))]
    np.testing.assert_allclose(seen.views.reshape(5, 8, 8, 3), np.stack(expected), atol=2e-3)
    assert len(list(views_of(image, ("flips",)))) == 2
    assert len(Observer(detector, "object", views=("flips",)).look(image, views=False).views) == 0


def test_a_folder_with_a_broken_image(detector, tmp_path):
    place = folder(tmp_path / "good", 5)
    (place / "03.png").write_bytes(b"no image")
    seen = []
    source = open_source(str(place))
    found = observe(source, Observer(detector, "object"), on_frame=lambda done, total: seen.append((done, total)))
    assert [name.rpartition("/")[2] for name in found.references.names] == ["00.png", "01.png", "02.png", "04.png"]
    assert [bad.source.rpartition("/")[2] for bad in found.skipped] == ["03.png"]
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5)] and found.sizes == ((32, 32),) * 4
    assert len(found.thumbnails) == 4
    assert found.only(np.array([2, 0])).references.names == (found.references.names[2], found.references.names[0])


def test_no_more_than_wanted(detector, tmp_path):
    found = observe(open_source(str(folder(tmp_path / "good", 5))), Observer(detector, "object"), most=2)
    assert len(found.references) == 2


def test_nothing_can_be_read(detector, tmp_path):
    (tmp_path / "only.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match="no frame in it can be read"):
        observe(open_source(str(tmp_path)), Observer(detector, "object"))


def test_tiles_by_a_frame(detector):
    manifest = detector.bundle.manifest
    found = suited_tiles(manifest, 120, 40)
    assert found is not None and (found.rows, found.columns) == (3, 1)
    assert suited_tiles(manifest, 50, 40) is None
    in_graph = replace(manifest, preprocessing=replace(manifest.preprocessing, resize=IN_GRAPH))
    assert suited_tiles(in_graph, 120, 40) is None


def test_more_than_fits(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(CalibrationError, match="more than 2 references"):
        observe(open_source(str(folder(tmp_path / "good", 4))), Observer(detector, "object"))


def test_thumbnails_are_small(detector, tmp_path):
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((300, 900, 3), np.uint8))
    found = observe(open_source(str(tmp_path)), Observer(detector, "object"))
    assert found.thumbnails[0].shape == (64, 192, 3)
