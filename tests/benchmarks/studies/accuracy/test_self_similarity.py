import click
import numpy as np
import pytest

from kanoclip.benchmarks.studies.accuracy.self_similarity import SelfSimilarity


def test_a_spot_in_an_even_surface_stands_out():
    plain = np.full((256, 256, 3), 90, np.uint8)
    spotted = plain.copy()
    spotted[96:128, 160:192] = 230
    (flat, low), (found, high) = SelfSimilarity().predict([plain, spotted], "object")
    assert found.shape == flat.shape == (256, 256) and found.min() >= 0 and found.max() <= 1
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - 112) < 40 and abs(column - 176) < 40 and high == found.max() > low


def test_a_backbone_without_a_stem_is_refused():
    with pytest.raises(click.UsageError, match="random-tiny has no convolutional stem"):
        SelfSimilarity("none", "random-tiny")
