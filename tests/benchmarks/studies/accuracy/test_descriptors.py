import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.accuracy.descriptors import Described, distances, main, maps_of, measure


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)


def test_distance_is_zero_to_a_row_of_the_memory_and_never_below():
    rng = np.random.default_rng(0)
    images, memory = unit(rng.normal(size=(2, 5, 8))), unit(rng.normal(size=(7, 8)))
    memory[3] = images[1, 4]
    found = distances(images, memory)
    assert found.shape == (2, 5) and found[1, 4] == pytest.approx(0, abs=2e-3)
    slow = 1 - (images[0, 2].astype(np.float64) @ memory.T.astype(np.float64)).max()
    assert found[0, 2] == pytest.approx(slow, abs=1e-5) and found.min() > -1e-2


def test_maps_keep_the_place_of_a_patch():
    patches = np.zeros((1, 16), np.float32)
    patches[0, 6] = 1  # row 1, column 2 of 4 x 4
    found = maps_of(patches, (4, 4), (32, 32))[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 8 <= row < 16 and 16 <= column < 24


def described(good, bad, masks=True):
    rng = np.random.default_rng(1)
    normal = rng.normal(size=8)
    rows = normal + 0.05 * rng.normal(size=(good + bad, 16, 8))
    rows[good:, 5] = -normal
    where = np.zeros((good + bad, 32, 32), bool)
    where[good:, 8:16, 8:16] = True  # patch 5 of 4 x 4
    labels = np.arange(good + bad) >= good
    return Described(unit(rows), labels, where if masks else None)


def test_what_differs_from_the_references_is_found_where_it_is():
    image, pixel = measure(described(6, 5), (4, 4), (32, 32), 3, draw=0)
    assert image == 100 and pixel > 97


def test_without_masks_there_is_no_pixel_figure_and_few_good_images_are_not_used_up():
    image, pixel = measure(described(3, 4, masks=False), (4, 4), (32, 32), 9, draw=0)
    assert image == 100 and np.isnan(pixel)


def test_the_command_measures_a_bundle(make_toy_bundle, tmp_path):
    bundle = make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 8))
    for kind, colour in (("good", (10, 10, 200)), ("bad", (200, 10, 10))):
        folder = tmp_path / "data" / "part" / "test" / kind
        folder.mkdir(parents=True)
        for number in range(4):
            image = np.full((32, 32, 3), colour, np.uint8)
            image[:, : 4 * number] //= 2
            cv2.imwrite(str(folder / f"{number}.png"), image)
    flags = ["--bundle", str(bundle), "--shots", "2", "--draws", "2", "--output", str(tmp_path / "o.json")]
    told = CliRunner().invoke(main, ["--root", str(tmp_path / "data"), *flags])
    assert told.exit_code == 0, told.output
    assert "2 references, part: 100.0" in told.output and (tmp_path / "o.json").exists()


def test_a_bundle_without_descriptors_is_refused(toy_bundle, tmp_path):
    (tmp_path / "data").mkdir()
    told = CliRunner().invoke(main, ["--root", str(tmp_path / "data"), "--bundle", str(toy_bundle)])
    assert told.exit_code == 1 and "has no descriptors: export it again" in told.output
