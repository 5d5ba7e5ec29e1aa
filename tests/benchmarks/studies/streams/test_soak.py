"""What a soak refuses, and that it leaves nothing behind; its figures are test_soak_figures.py's."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.streams.process_samples import children_of
from kanoclip.benchmarks.studies.streams.soak import main


@pytest.mark.parametrize("minutes, settle", [("1", "0.5"), ("5", "5"), ("1", "5")])
def test_a_soak_too_short_to_show_anything_is_refused_before_it_starts(minutes, settle):
    done = CliRunner().invoke(main, ["--minutes", minutes, "--settle", settle])
    assert done.exit_code == 2 and "must be longer than --settle" in done.output


def test_what_is_watched_ends_with_it(toy_bundle):
    """Left behind, it would score frames until somebody finds it."""
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.streams.soak", str(toy_bundle)]
    command += ["--minutes", "5", "--settle", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (watched := children_of(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watched
        process.terminate()
        assert process.wait(60) != 0
    assert not any(Path(f"/proc/{one}").exists() for one in watched)
