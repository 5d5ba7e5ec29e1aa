from __future__ import annotations

import pytest

from kanoclip.benchmarks.bench import turns
from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.benchmarks.bench.turns import take_turns


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(turns, "PAUSE_S", 0)


def run(order, rounds, journal):
    work = {name: lambda name=name: order.append(name) for name in "ab"}
    return take_turns(work, rounds, 2, journal, "latency", lambda part: None)


def test_runners_take_turns_and_warmup_does_not_count():
    order = []
    spent = run(order, 3, Journal(None, {}))
    assert order == ["a", "a", "b", "b", *"ababab"]
    assert [len(times) for times in spent.values()] == [3, 3]


def test_a_run_that_goes_on_warms_up_again_and_measures_what_is_missing(tmp_path):
    with Journal(tmp_path / "j", {}) as journal:
        first = run([], 2, journal)
    order = []
    with Journal(tmp_path / "j", {}) as journal:
        spent = run(order, 3, journal)
    assert order == ["a", "a", "b", "b", "a", "b"]
    assert all(spent[name][:2] == first[name] for name in "ab")
    with Journal(tmp_path / "j", {}) as journal:
        order.clear()
        assert run(order, 3, journal) == spent and order == []
