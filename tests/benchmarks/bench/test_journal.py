from __future__ import annotations

import json

import pytest

from kanoclip.benchmarks.bench.journal import Journal
from kanoclip.runtime.errors import KanoclipError

RUN = {"bundle": "abc", "settings": {"rounds": 3}}


def never():
    raise AssertionError("it was measured before")


def test_what_is_known_is_not_measured_again(tmp_path):
    path = tmp_path / "r.jsonl"
    with Journal(path, RUN) as journal:
        assert journal.known == 0
        assert journal.once("latency/0", lambda: {"a": (1.5, 2)}) == {"a": [1.5, 2]}, "as it will be read again"
    with Journal(path, RUN) as journal:
        assert journal.known == 1 and journal.knows("latency/0")
        assert journal.once("latency/0", never) == {"a": [1.5, 2]}
        assert journal.once("latency/1", lambda: None) is None
    with Journal(path, RUN) as journal:
        assert journal.once("latency/1", never) is None, "nothing is a result, too"


@pytest.mark.parametrize("torn", [b'{"piece": "latency/1", "res', b"{", b'{"piece": "latency/1", "result": 2}'])
def test_a_line_that_was_not_finished_is_measured_again(tmp_path, torn):
    path = tmp_path / "r.jsonl"
    with Journal(path, RUN) as journal:
        journal.once("latency/0", lambda: 1)
    path.write_bytes(path.read_bytes() + torn)
    with Journal(path, RUN) as journal:
        assert journal.known == 1
        assert journal.once("latency/1", lambda: 3) == 3
    assert [json.loads(line) for line in path.read_text().splitlines()][1:] == [
        {"piece": "latency/0", "result": 1},
        {"piece": "latency/1", "result": 3},
    ]


def test_a_run_killed_while_it_began_begins_again(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"run": {"bund')
    with Journal(path, RUN) as journal:
        journal.once("latency/0", lambda: 1)
    assert Journal(path, RUN).known == 1


def test_another_runs_file_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "r.jsonl"
    with Journal(path, RUN) as journal:
        journal.once("latency/0", lambda: 1)
    before = path.read_bytes()
    with pytest.raises(KanoclipError, match="differs in settings"):
        Journal(path, {**RUN, "settings": {"rounds": 4}})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"my thesis", b"[1]\n", b'{"a": 1}\n', b'{"run": {}}\n{"x": 1}\n', b"\xff\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    with pytest.raises(KanoclipError, match=r"--resume .* is no file of kanoclip-bench"):
        Journal(path, RUN)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(KanoclipError, match=r"--resume .*none.* cannot be used"):
        Journal(tmp_path / "none" / "r.jsonl", RUN)
    with Journal(None, RUN) as journal:
        assert journal.once("a", lambda: 1) == 1
