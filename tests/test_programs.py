"""Tests that start a program of the system: skipped where it is not there, failed where they must run."""

from __future__ import annotations

import stat
import sys

import pytest


def test_a_program_is_found_also_where_servers_lie(program, tmp_path, monkeypatch):
    assert program("sh").endswith("/sh")
    here = tmp_path / "oddity"
    here.write_text("#!/bin/sh\n")
    here.chmod(here.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program("oddity") == str(here)


def test_without_it_the_test_is_skipped_and_fails_where_it_must_run(program, monkeypatch):
    monkeypatch.delenv("KANOCLIP_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed \(tests/apt-packages.txt\)"):
        program("no-such-program")
    monkeypatch.setenv("KANOCLIP_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program is not installed .* wants every such test run"):
        program("no-such-program")


def test_the_marker_looks_for_each_of_its_programs(program, request, monkeypatch):
    monkeypatch.delenv("KANOCLIP_REQUIRE_SERVICES", raising=False)
    hook = sys.modules[program.__module__].pytest_runtest_setup
    request.node.add_marker(pytest.mark.programs("sh"))
    hook(request.node)
    request.node.add_marker(pytest.mark.programs("sh", "no-such-program"))
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        hook(request.node)
