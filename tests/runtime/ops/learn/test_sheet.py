"""The contact sheet shows each reference, the odd ones first."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from learning import observed
from references import memory

from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.learn.job import Learned
from kanoclip.runtime.ops.learn.outliers import Outlier
from kanoclip.runtime.ops.learn.sheet import COLUMNS, MOST, draw_sheet, write_jpeg

RED, ORANGE, GREEN = (50, 60, 220), (30, 160, 240), (90, 170, 60)


def has(image, colour):
    return bool((image == colour).all(-1).any())


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 5, 1), (COLUMNS + 1, COLUMNS, 2)])
def test_size(count, columns, rows):
    image = draw_sheet(Learned(memory(1), observed(count), np.arange(count), ()))
    assert image.shape == (rows * 244, columns * 204, 3) and has(image, GREEN) and not has(image, RED)


def test_states_and_order():
    odd = (Outlier(2, "02.png", "odd"), Outlier(3, "03.png", "odd"))
    image = draw_sheet(Learned(memory(1), observed(5), np.array([0, 1, 3, 4]), odd))
    first, second, third = (image[:, 204 * n : 204 * (n + 1)] for n in range(3))
    assert has(first, RED) and has(second, ORANGE) and has(third, GREEN)


def test_it_is_bounded():
    count = MOST + 20
    assert draw_sheet(Learned(memory(1), observed(count), np.arange(count), ())).shape[0] == MOST // COLUMNS * 244


def test_written(tmp_path):
    write_jpeg(tmp_path / "sheet.jpg", np.zeros((9, 9, 3), np.uint8))
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (9, 9, 3)
    with pytest.raises(SinkError, match="cannot be written"):
        write_jpeg(tmp_path / "none" / "sheet.jpg", np.zeros((9, 9, 3), np.uint8))
