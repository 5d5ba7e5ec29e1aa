"""Sorted portions: search, cuts, the file behind them and its faults."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.metrics.runs import Run, Spool, cut_points

# Few different values, both zeros and the infinities among them.
VALUES = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 0.5, 1.0, np.inf])
SORTED = arrays.arrays(np.float32, st.integers(1, 60), elements=VALUES).map(np.sort)
MEMORY = st.sampled_from([0, 40, 1000])


@given(SORTED, VALUES, st.integers(1, 9), MEMORY, st.sampled_from(["left", "right"]))
def test_search_is_that_of_numpy(values, value, stride, memory, side):
    with closing(Spool(memory)) as spool:
        run = Run(spool, stride, values)
        assert run.search(np.float32(value), side) == np.searchsorted(values, np.float32(value), side)


@given(st.lists(SORTED, min_size=1, max_size=5), MEMORY, st.data())
def test_read_gives_back_what_was_stored(runs, memory, data):
    with closing(Spool(memory)) as spool:
        stored = [Run(spool, 3, values, np.arange(len(values), dtype=np.uint32)) for values in runs]
        for run, values in zip(stored, runs, strict=True):
            start = data.draw(st.integers(0, len(values)))
            stop = data.draw(st.integers(start, len(values)))
            found, index = run.read(start, stop)
            assert found.dtype == np.float32 and index.dtype == np.uint32
            assert found.tobytes() == values[start:stop].tobytes()
            assert index.tolist() == list(range(start, stop))


@given(st.lists(SORTED, min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 40))
def test_few_rows_between_cuts(runs, stride, extra):
    rows = (len(runs) + 1) * stride + extra
    with closing(Spool(10**6)) as spool:
        cuts = cut_points([Run(spool, stride, values) for values in runs], stride, rows)
    every = np.concatenate(runs)
    assert cuts == sorted(set(cuts), reverse=True)
    assert cuts[-1] == every.min()
    for low, high in zip([*cuts[1:], None], cuts, strict=True):
        above = every > low if low is not None else every < high
        assert np.count_nonzero(above & (every < high)) <= rows
    assert np.count_nonzero(every > cuts[0]) <= rows


def test_few_rows_between_cuts_where_runs_crowd_between_their_samples():
    crowd = np.concatenate(([-1], np.linspace(100, 106, 9))).astype(np.float32)
    runs = [np.arange(200, dtype=np.float32), *[crowd] * 4]
    with closing(Spool(10**6)) as spool:
        cuts = cut_points([Run(spool, 10, values) for values in runs], 10, 60)
    every = np.concatenate(runs)
    assert max(np.count_nonzero((every > low) & (every < high)) for high, low in pairwise(cuts)) <= 60


def test_memory_first_then_one_nameless_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with closing(Spool(100)) as spool:
        spool.keep(np.zeros(25, np.float32))
        assert spool.bytes_on_disk == 0
        column = spool.keep(np.arange(50, dtype=np.float32))
        assert spool.bytes_on_disk == 200
        assert list(tmp_path.iterdir()) == []
        assert column.read(10, 12).tolist() == [10, 11]


def test_closing_closes_the_file(monkeypatch):
    spool, made = spooled(monkeypatch)
    spool.close()
    assert made[0].closed


def test_a_file_that_ends_early_is_told(monkeypatch):
    spool, made = spooled(monkeypatch)
    column = spool.keep(np.arange(100, dtype=np.float32))
    os.ftruncate(made[0].fileno(), 50)
    with closing(spool), pytest.raises(KanoclipError, match=r"does not give back .*ends early.*TMPDIR"):
        column.read(0, 100)


def test_no_folder_at_all(monkeypatch, tmp_path):
    """A machine whose only disk is full: Python refuses every folder before a file is made."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    with pytest.raises(KanoclipError, match=r"no folder for temporary files cannot take .*gone.*TMPDIR") as caught:
        Spool(0).keep(np.zeros(3, np.float32))
    assert "\n" not in str(caught.value)


def spooled(monkeypatch):
    """A spool that writes to disk, and the list of files it made."""
    make, made = tempfile.TemporaryFile, []
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: made.append(make(**options)) or made[-1])
    spool = Spool(0)
    spool.keep(np.zeros(1, np.float32))
    return spool, made
