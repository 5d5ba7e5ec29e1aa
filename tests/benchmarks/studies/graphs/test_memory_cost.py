"""What a memory costs: every case takes its turn, and is compared with the graph that takes none."""

from __future__ import annotations

import numpy as np

from kanoclip.benchmarks.studies.graphs.memory_cost import EMPTY, TAKES_NONE, measure, some_rows
from kanoclip.runtime.bundle.bundle import Bundle


def test_every_case_is_measured_against_the_graph_that_takes_none(make_toy_bundle, tmp_path):
    without = Bundle.open(make_toy_bundle(tmp_path / "without.kanoclip", grid=(4, 4)))
    taking = Bundle.open(make_toy_bundle(tmp_path / "taking.kanoclip", grid=(4, 4), memory_rows=16))
    found = measure(without, taking, (4, 16), ("onnxruntime", "openvino"), 3)
    cases = [TAKES_NONE, EMPTY, "4 rows", "16 rows"]
    assert [(row["backend"], row["case"]) for row in found] == [
        (backend, case) for backend in ("onnxruntime", "openvino") for case in cases
    ]
    assert all(row["milliseconds"] > 0 and row["ratio"] > 0 for row in found)
    assert [row["ratio"] for row in found if row["case"] == TAKES_NONE] == [1, 1]


def test_the_first_rows_of_a_memory(make_memory):
    whole = make_memory(9)
    part = some_rows(whole, 4)
    np.testing.assert_array_equal(part.rows, whole.rows[:4])
    assert part.bias.shape == (4,) and part.fusion is whole.fusion and part.centre is whole.centre
