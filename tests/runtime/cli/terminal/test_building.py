from __future__ import annotations

import io

from rich.console import Console

from kanoclip.runtime.cli.terminal.building import builds_shown


def told(terminal, *steps):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=80, legacy_windows=False)
    with builds_shown(console) as report:
        for step, share in steps:
            report(step, share)
    return written.getvalue()


def test_nothing_is_shown_where_nothing_is_built():
    assert told(False) == "" and told(True) == ""


def test_a_log_file_gets_each_step_once():
    steps = [("building [1]", share / 10) for share in range(10)] + [("building [2]", 0.0)]
    assert told(False, *steps) == "building [1]\nbuilding [2]\n"


def test_a_terminal_gets_a_bar():
    assert "building it" in told(True, ("building it", 0.5))
