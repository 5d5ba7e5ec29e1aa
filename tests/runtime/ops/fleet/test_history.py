"""What was installed: kept in order, bounded, and damaged files told from missing ones."""

from __future__ import annotations

import json

import pytest

from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.history import _MOST, History, Installed, Refused


def address(number):
    return f"sha256:{number:064x}"


def installed(number):
    return Installed(address(number), f"line{number}", "2026-01-02T03:04:05+00:00", "oci://store/x", None, None)


def test_the_newest_is_last_and_no_bundle_is_in_it_twice():
    history = History()
    for number in (1, 2, 3, 1):
        history = history.with_installed(installed(number))
    assert [one.address for one in history.installed] == [address(2), address(3), address(1)]


def test_one_that_is_refused_is_nothing_to_go_back_to_and_may_be_installed_again():
    history = History().with_installed(installed(1)).with_installed(installed(2))
    history = history.with_refused(address(2), "2026-01-03", "no map").with_refused(
        address(2), "2026-01-04", "no score"
    )
    assert [one.address for one in history.installed] == [address(1)]
    assert history.refused == (Refused(address(2), "2026-01-04", "no score"),)
    assert history.refusal(address(2)).reason == "no score" and history.refusal(address(1)) is None
    assert history.with_installed(installed(2)).refused == ()


def test_it_does_not_grow_without_end():
    history = History()
    for number in range(2 * _MOST):
        history = history.with_installed(installed(number)).with_refused(address(10_000 + number), "now", "x")
    assert len(history.installed) == len(history.refused) == _MOST
    assert history.installed[-1].address == address(2 * _MOST - 1)


def test_round_trip(tmp_path):
    path = tmp_path / "history.json"
    assert History.read(path) == History()
    history = History().with_installed(installed(1)).with_refused(address(2), "now", "größer\nals\u2028erlaubt")
    history.write(path)
    assert History.read(path) == history


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(schema=2),
        lambda value: value.pop("schema"),
        lambda value: value.pop("refused"),
        lambda value: value.update(installed=None),
        lambda value: value.update(installed={"a": 1}),
        lambda value: value["installed"][0].pop("key"),
        lambda value: value["installed"][0].update(later="field"),
        lambda value: value["installed"][0].update(address="../../etc"),
        lambda value: value["installed"][0].update(address=7),
        lambda value: value["refused"].append([]),
        lambda value: value["refused"].append({"address": address(3).upper(), "at": "", "reason": ""}),
    ],
)
def test_any_damage_is_told_with_what_comes_of_it(tmp_path, change):
    path = tmp_path / "history.json"
    History().with_installed(installed(1)).with_refused(address(2), "now", "x").write(path)
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    with pytest.raises(FleetError, match=r"history\.json is damaged: delete it; the current bundle stays"):
        History.read(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1'])
def test_what_is_no_history(tmp_path, content):
    path = tmp_path / "history.json"
    path.write_bytes(content)
    with pytest.raises(FleetError, match="damaged"):
        History.read(path)


def test_a_folder_in_its_place_is_not_called_damaged(tmp_path):
    with pytest.raises(FleetError, match="cannot be read"):
        History.read(tmp_path)
