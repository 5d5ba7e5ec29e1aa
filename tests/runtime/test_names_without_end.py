"""Names that a stream makes up all the time, which Python must not be made to keep in its table of interned strings."""

from __future__ import annotations

import sys

import pytest

from kanoclip.runtime.sinks.snapshots.reader import SUFFIXES
from kanoclip.runtime.sinks.snapshots.ring import SnapshotRing
from kanoclip.runtime.system import hardware as machine
from kanoclip.runtime.system.paths import replace_file


@pytest.fixture
def interned(monkeypatch):
    """What is asked for meanwhile; pathlib asks for each part of a new path."""
    names, intern = [], sys.intern

    def note(text):
        names.append(text)
        return intern(text)

    monkeypatch.setattr(sys, "intern", note)
    return names


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="not known of later ones")
def test_a_path_would_be(interned, tmp_path):
    assert str(tmp_path / "a name of its own") and "a name of its own" in interned


def test_snapshots_that_come_and_go(interned, tmp_path):
    ring = SnapshotRing(tmp_path / "ring", 1 << 20, max_count=2)
    interned.clear()
    for number in range(5):
        ring.add(f"20260101T000000.000Z_camera_{number:08d}", dict.fromkeys(SUFFIXES, b"x"))
    ring.close()
    assert len(list((tmp_path / "ring").glob("*.jpg"))) == 4, "two, and what is drawn on them"
    assert not [name for name in interned if "camera" in name]


def test_a_file_beside(interned, tmp_path):
    place = f"{tmp_path}/new.txt"
    interned.clear()
    replace_file(place, b"x", durable=True)
    assert not interned
    assert (tmp_path / "new.txt").read_bytes() == b"x"


def test_the_machine_s_figures_of_each_second(interned):
    thermometers = machine.Thermometers()
    interned.clear()
    for _ in range(3):
        thermometers.read()
        assert machine.resident_bytes() is not None and machine.available_bytes() is not None
    assert not interned
