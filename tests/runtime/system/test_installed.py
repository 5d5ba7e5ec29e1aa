"""Trying a program of the system."""

from __future__ import annotations

import sys

from kanoclip.runtime.system.installed import succeeds


def test_only_an_end_in_time_with_exit_code_0_is_success():
    assert succeeds([sys.executable, "-c", "pass"], 30)
    assert not succeeds([sys.executable, "-c", "raise SystemExit(3)"], 30)
    assert not succeeds([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert not succeeds(["no-such-program-anywhere"], 30)


def test_it_is_given_nothing_and_says_nothing(capfd):
    assert succeeds(
        [sys.executable, "-c", "import sys; assert sys.stdin.read() == ''; print('x'); print('y', file=sys.stderr)"], 30
    )
    assert capfd.readouterr() == ("", "")
