"""What a threshold depends on: the same references in the same order give the same one."""

from __future__ import annotations

import numpy as np
from references import DIGEST, references

from kanoclip.benchmarks.studies.accuracy.reference_order import thresholds


def test_each_variation_is_one():
    found = thresholds(references(14), 12, 3, DIGEST, rows=32)
    assert {name: len(values) for name, values in found.items()} == {"order": 3, "seed": 3, "references": 3}
    assert found["order"][0] == found["seed"][0], "by name, and seed 0"
    assert all(len(np.unique(values)) > 1 for values in found.values())


def test_where_there_are_no_others():
    assert thresholds(references(6), 8, 2, DIGEST, rows=32).keys() == {"order", "seed"}
