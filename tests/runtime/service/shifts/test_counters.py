"""Counts by hour: nothing is lost or doubled by a restart, a clock that is set, or a disk that is full."""

from __future__ import annotations

import errno
import json
import logging

import pytest

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.shifts.counters import FILE, MAX_ROWS, SAVE_S, Counts, ShiftCounters
from kanoclip.runtime.service.shifts.plan import ShiftPlan
from kanoclip.runtime.stream.control.progress import Progress, SourceProgress

PLAN = ShiftPlan.parse("6:00,14:00,22:00")
NOON = 1_750_000_000.0 - 1_750_000_000.0 % 3600


class Line:
    """A stream's counters, and the clocks."""

    def __init__(self):
        self.counts, self.wall, self.now = {}, NOON, 1000.0

    def scores(self, name, frames, anomalous=0, alarms=0, skipped=0):
        self.counts[name] = self.counts.get(name, Counts()) + Counts(frames, anomalous, alarms, skipped)
        self.now += 2
        rows = tuple(
            SourceProgress(n, c.frames, c.anomalous, c.skipped, 0, 0.0, None, None, None, None, alarms=c.alarms)
            for n, c in self.counts.items()
        )
        return Progress(0, 0, 0, 0, {}, 0.0, 0.0, 0.0, 0.0, None, False, rows)

    def counters(self, folder=None):
        return ShiftCounters(PLAN, folder, wall=lambda: self.wall, clock=lambda: self.now)


def total(counters):
    return sum((counts for _, _, counts in counters.rows()), Counts())


def test_hours_and_sources_are_told_apart(tmp_path):
    line, name = Line(), '<b>"left"/../ \x07'
    counters = line.counters()
    counters.tick(line.scores(name, 5, 2, 1))
    counters.tick(line.scores("right", 7, skipped=3))
    line.wall += 3600
    counters.tick(line.scores(name, 1, 1))
    assert counters.rows() == [
        (NOON, name, Counts(5, 2, 1, 0)),
        (NOON, "right", Counts(7, 0, 0, 3)),
        (NOON + 3600, name, Counts(1, 1, 0, 0)),
    ]


def test_a_restart_goes_on_where_it_was(tmp_path):
    for frames in (5, 7, 11):
        line = Line()
        counters = line.counters(tmp_path / "new" / "counts")
        counters.tick(line.scores("left", frames))
        counters.close(line.scores("left", 1))
    assert line.counters(tmp_path / "new" / "counts").rows() == [(NOON, "left", Counts(26))]


def test_a_process_that_is_killed_has_saved_all_but_the_last_minute(tmp_path):
    line = Line()
    counters = line.counters(tmp_path)
    counters.tick(line.scores("left", 5))
    assert not (tmp_path / FILE).exists()
    line.now += SAVE_S
    counters.tick(line.scores("left", 2))
    assert json.loads((tmp_path / FILE).read_text())["hours"][0]["frames"] == 7
    counters._held.release()  # as the system does for a process that has gone
    assert total(Line().counters(tmp_path)) == Counts(7)


@pytest.mark.parametrize("step", [-5 * 3600, -10, 10 * 365 * 86400, -NOON + 3600])
def test_a_clock_that_is_set_moves_counts_and_loses_none(step):
    line = Line()
    counters = line.counters()
    counters.tick(line.scores("left", 5))
    line.wall += step
    counters.tick(line.scores("left", 3, 1))
    line.wall -= step
    counters.tick(line.scores("left", 2))
    assert total(counters) == Counts(10, 1)


def test_a_full_disk_is_said_once_and_made_up_for(tmp_path, monkeypatch, caplog):
    line = Line()
    counters = line.counters(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, caplog.at_level(logging.INFO):
        patched.setattr("kanoclip.runtime.service.shifts.counters.replace_file", full)
        for _ in range(3):
            line.now += SAVE_S
            counters.tick(line.scores("left", 1))
    assert caplog.text.count("No space left") == 1
    line.now += SAVE_S
    with caplog.at_level(logging.INFO):
        counters.tick(line.scores("left", 1))
    assert "is written again" in caplog.text
    counters.close()
    assert total(Line().counters(tmp_path)) == Counts(4)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"hours": [{}]}',
        '{"hours": [{"start": 1, "source": "x", "frames": -1, "anomalous": 0}]}',
        '{"hours": [{"start": NaN, "source": "x", "frames": 1, "anomalous": 0, "alarms": 0, "skipped": 0}]}',
        "[" * 9999,
    ],
)
def test_a_damaged_file_is_put_aside(tmp_path, caplog, text):
    (tmp_path / FILE).write_text(text)
    counters = Line().counters(tmp_path)
    assert counters.rows() == [] and "put aside" in caplog.text
    (aside,) = tmp_path.glob("counters.damaged-*.json")
    assert aside.read_text() == text


def test_one_process_counts_in_a_folder(tmp_path):
    first = Line().counters(tmp_path)
    with pytest.raises(SettingsError, match="another kanoclip-run counts there"):
        Line().counters(tmp_path)
    first.close()
    Line().counters(tmp_path).close()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used"):
        Line().counters(tmp_path / "file")


def test_it_never_grows_without_end():
    line = Line()
    counters = line.counters()
    for hour in range(3):
        line.wall = NOON + 3600 * hour
        for source in range(MAX_ROWS // 2):
            line.counts[f"camera {source}"] = Counts(hour + 1)
        counters.tick(line.scores("last", 1))
    rows = counters.rows()
    assert len(rows) == MAX_ROWS and rows[-1][0] == NOON + 7200
