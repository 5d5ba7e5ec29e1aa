from __future__ import annotations

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import DataError
from kanoclip.train.data.images import read_image


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("grey.png", np.full((2, 3), 200, np.uint8)),
        ("deep.png", np.full((2, 3), 200 * 257, np.uint16)),
        ("clear.png", np.dstack([np.full((2, 3, 3), 200, np.uint8), np.zeros((2, 3), np.uint8)])),
        ("colour.BMP", np.full((2, 3, 3), 200, np.uint8)),
    ],
)
def test_every_kind_becomes_8_bit_bgr(tmp_path, name, values):
    cv2.imwrite(str(tmp_path / name), values)
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8 and image.shape == (2, 3, 3)
    assert (image == (255 if name == "clear.png" else 200)).all()  # white shows through


def test_an_image_cut_short_is_named(tmp_path, draw):
    path = draw.image(tmp_path / "a.jpg", (200, 200))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match="cut short") as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_link_to_nothing_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.symlink_to("gone.png")
    with pytest.raises(DataError, match=r"a\.png: No such file"):
        read_image(path)
