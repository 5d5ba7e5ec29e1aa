"""Lines on standard error: text and JSON, repeated messages, credentials, and what must not raise."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
import threading
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.service.logs import HOLD_S, KINDS, LONGEST_HOLD_S, LogFormat, Repetitions, clean, log_lines

from .conftest import Clock

log = logging.getLogger("kanoclip.runtime.anything")


def json_lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("quiet", [False, True])
def test_lines_of_text(capsys, quiet):
    with log_lines(quiet=quiet):
        log.info("openvino-cpu chosen: 2.0 ms against 3.0 ms on onnxruntime-cpu")
        log.warning("onnxruntime is left out: [red]broken[/red]")
        log.error("stuck")
    log.info("unheard")
    said = capsys.readouterr()
    lines = ["openvino-cpu chosen: 2.0 ms against 3.0 ms on onnxruntime-cpu"] * (not quiet)
    lines += ["warning: onnxruntime is left out: [red]broken[/red]", "error: stuck"]
    assert said.err.splitlines() == lines
    assert said.out == ""


def test_lines_of_json_hold_what_is_known(capsys):
    before = datetime.now(timezone.utc)
    with log_lines(LogFormat.JSON):
        log.info("engine: %s", "nano", extra={"event": "engine", "seconds": 1.5, "not_finite": float("nan")})
        log.warning("lost", extra={"source": Path("/dev/video0"), "message_id": [1, {"a": None}], "level": "mine"})
    one, two = json_lines(capsys)
    assert list(one)[:4] == ["time", "level", "logger", "message"]
    time = datetime.fromisoformat(one.pop("time"))
    assert time.tzinfo is not None and 0 <= (time - before).total_seconds() + 0.001 < 60
    assert one == {
        "level": "info",
        "logger": "kanoclip.runtime.anything",
        "message": "engine: nano",
        "event": "engine",
        "seconds": 1.5,
        "not_finite": "nan",
    }
    assert (two["source"], two["message_id"], two["level"]) == ("/dev/video0", [1, {"a": None}], "warning")


@pytest.mark.parametrize("style", LogFormat)
def test_a_message_is_one_line_and_cannot_forge_another(capsys, monkeypatch, style):
    # pytest's own record of the message would be sent between xdist's processes, which take no half of a character.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with log_lines(style):
        log.warning('torn\nerror: forged\r\x1b[2J\x00 "quoted" \udcff é')
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "\x1b[2J" not in said and "\x00" not in said
    message = json.loads(said)["message"] if style is LogFormat.JSON else said.strip().removeprefix("warning: ")
    assert message == 'torn error: forged \\x1b[2J\\x00 "quoted" \\udcff é'


@pytest.mark.parametrize(
    "text, shown",
    [
        ("rtsp://me:s3cret@cam/1: lost", "rtsp://***@cam/1: lost"),
        ("a 'http://cam/v?token=s3cret&w=5' b", "a 'http://cam/v?token=***&w=5' b"),
        ("rtspsrc location=rtsp://u:s3cret@h/ ! x", "rtspsrc location=rtsp://***@h/ ! x"),
        ("rtspsrc user-pw=s3cret latency=0", "rtspsrc user-pw=*** latency=0"),
        ('{"password": "s3cret two", "a": 1}', '{"password": ***, "a": 1}'),
        ("MQTT_PASSWORD=s3cret", "MQTT_PASSWORD=***"),
        ("no token: give --token-file FILE", "no token: give --token-file FILE"),
        ("/dev/video0: 4 frames of 640x480", "/dev/video0: 4 frames of 640x480"),
    ],
)
def test_no_credentials(capsys, text, shown):
    assert clean(text) == shown
    with log_lines(LogFormat.JSON):
        log.warning("%s", text, extra={"source": text})
    (line,) = json_lines(capsys)
    assert line["message"] == line["source"] == shown


class TestRepetitions:
    def test_less_and_less_often_and_counted(self, clock):
        repetitions = Repetitions(clock)
        said = {}
        for second in range(24 * 3600):  # a day of one message a second
            clock.now = 100.0 + second
            left_out = repetitions.admit("a", 30, f"lost after {second} frames")
            if left_out is not None:
                said[second] = left_out
        times = list(said)
        assert times[:6] == [0, 60, 180, 420, 900, 1860]
        assert all(later - earlier <= LONGEST_HOLD_S for earlier, later in itertools.pairwise(times))
        assert len(said) < 35
        rest = list(repetitions.rest())
        assert sum(said.values()) + len(said) + sum(count for *_, count in rest) == 24 * 3600
        assert rest[0][:3] == ("a", 30, f"lost after {24 * 3600 - 1} frames")
        assert list(repetitions.rest()) == []

    def test_another_message_level_or_logger_is_said_at_once(self, clock):
        repetitions = Repetitions(clock)
        for key in (("a", 30, "x"), ("b", 30, "x"), ("a", 40, "x"), ("a", 30, "y")):
            assert repetitions.admit(*key) == 0
            assert repetitions.admit(*key) is None

    def test_after_a_long_pause_it_is_new(self, clock):
        repetitions = Repetitions(clock)
        for _ in range(3):
            repetitions.admit("a", 30, "x")
        clock.now += 3 * HOLD_S
        assert repetitions.admit("a", 30, "x") == 2
        clock.now += HOLD_S - 1
        assert repetitions.admit("a", 30, "x") is None
        clock.now += 1
        assert repetitions.admit("a", 30, "x") == 1

    def test_it_remembers_a_bounded_number(self, clock):
        repetitions = Repetitions(clock)
        for number in range(10 * KINDS):
            assert repetitions.admit("a", 30, f"message {'x' * number}") == 0
        assert len(repetitions._kinds) == KINDS

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 300)), max_size=60))
    def test_nothing_is_lost_from_the_count(self, events):
        clock = Clock()
        repetitions = Repetitions(clock)
        counted = 0
        for message, wait in events:
            clock.now += wait
            left_out = repetitions.admit("a", 30, message)
            counted += 0 if left_out is None else 1 + left_out
        assert counted + sum(count for *_, count in repetitions.rest()) == len(events)


def test_the_count_is_said_at_the_end(capsys):
    with log_lines():
        for number in range(5):
            log.warning("lost after %d frames", number)
    assert capsys.readouterr().err.splitlines() == [
        "warning: lost after 0 frames",
        "warning: lost after 4 frames (and 4 times since it was last logged)",
    ]
    with log_lines():
        log.warning("lost")
        log.warning("lost")
    assert capsys.readouterr().err.splitlines()[1] == "warning: lost (and 1 time since it was last logged)"
    with log_lines(LogFormat.JSON):
        for number in range(5):
            log.warning("lost after %d frames", number)
    first, last = json_lines(capsys)
    assert "repeated" not in first and last["repeated"] == 4


def test_threads_write_whole_lines(capsys):
    with log_lines(LogFormat.JSON):
        threads = [
            threading.Thread(target=lambda n=n: [log.info("%s", chr(97 + n) * (50 + k)) for k in range(40)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(json_lines(capsys)) == 320


def test_what_cannot_be_written_ends_no_stream(monkeypatch, capsys):
    class Broken:
        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = fileno = isatty = write

    class Odd:
        def __str__(self):
            raise RuntimeError("no text")

    monkeypatch.setattr(logging.getLogger("kanoclip.runtime"), "propagate", False)  # pytest's own handler raises
    with log_lines(LogFormat.JSON):
        log.warning("%s", Odd())
        log.warning("%d", "no number")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", Broken())
            log.warning("lost")
        log.warning("found")
    (line,) = json_lines(capsys)
    assert line["message"] == "found"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd's journal")
@pytest.mark.parametrize("style", LogFormat)
def test_lines_in_the_journal_have_priorities(tmp_path, style):
    """What systemd does: standard error is a socket or file whose device and inode are in $JOURNAL_STREAM."""
    script = (
        "import logging\nfrom kanoclip.runtime.service.logs import LogFormat, log_lines\n"
        f"with log_lines(LogFormat({style.value!r})):\n"
        "    log = logging.getLogger('kanoclip.runtime.x')\n"
        "    log.info('fine'); log.warning('odd'); log.error('bad')\n"
    )
    said = {}
    for journal in (True, False):
        with (tmp_path / f"{journal}").open("w+") as file:
            found = os.fstat(file.fileno())
            inode = found.st_ino if journal else found.st_ino + 1
            environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{inode}"}
            subprocess.run([sys.executable, "-c", script], stderr=file, env=environment, check=True, timeout=60)
            file.seek(0)
            said[journal] = file.read().splitlines()
    assert [line[:3] for line in said[True]] == ["<6>", "<4>", "<3>"]
    assert not any(line.startswith("<") for line in said[False])
    if style is LogFormat.JSON:
        assert [json.loads(line[3:])["message"] for line in said[True]] == ["fine", "odd", "bad"]
