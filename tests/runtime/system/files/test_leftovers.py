from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kanoclip.runtime.system.files.leftovers import staging, sweep_numbered

FILL = """
import sys, time
from pathlib import Path
from kanoclip.export.staging import staged
from kanoclip.runtime.errors import KanoclipError
try:
    with staged(Path(sys.argv[1])) as folder:
        (folder / "half").write_text("half")
        print("half", flush=True)
        time.sleep(1000)
except KanoclipError as error:
    sys.exit(str(error))
"""


def filling(output):
    process = subprocess.Popen(
        [sys.executable, "-c", FILL, str(output)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half\n"
    return process


def end(process, number):
    process.send_signal(number)
    return process.communicate()[1]


def test_what_a_killed_one_left_goes_and_what_a_running_one_fills_stays(tmp_path):
    output = tmp_path / "a.kanoclip"
    killed, running = filling(output), filling(output)
    end(killed, signal.SIGKILL)
    assert len(list(tmp_path.glob(".a.kanoclip.*/half"))) == 2
    with staging(output) as folder:
        assert len(list(tmp_path.glob(".a.kanoclip.*/half"))) == 1
        assert folder.is_dir()
    shown = end(running, signal.SIGTERM)
    assert shown == f"stopped by SIGTERM; {output} is as it was\n"
    assert running.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_only_our_own_pattern_goes(tmp_path):
    output = tmp_path / "a.kanoclip"
    others = [
        ".a.kanoclip.mine",
        "a.kanoclip.abcdefgh",
        ".b.kanoclip.abcdefgh",
        ".axkanoclip.abcdefgh",
        ".a.kanoclip.ABCDEFGH",
    ]
    for name in [*others, ".a.kanoclip.abcdefgh", ".a.kanoclip.old.abc_efg1"]:
        (tmp_path / name).mkdir()
    (tmp_path / ".a.kanoclip.linklink").symlink_to(tmp_path / others[0])
    (tmp_path / ".a.kanoclip.filefile").touch()
    with staging(output):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*others, ".a.kanoclip.linklink", ".a.kanoclip.filefile"]
    )


def test_a_bundle_that_was_moved_away_last_goes_back(tmp_path):
    output, away = tmp_path / "a.kanoclip", tmp_path / ".a.kanoclip.old.abc_efg1" / "a.kanoclip"
    away.mkdir(parents=True)
    (away / "manifest.json").write_text("old")
    with staging(output):
        pass
    assert (output / "manifest.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.kanoclip"]


@pytest.mark.parametrize("folder", [False, True])
def test_what_has_the_number_of_a_process(tmp_path, folder):
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [f"r.parquet.{gone.pid}.part", f"r.parquet.{'9' * 30}.part"]
    stay = [f"r.parquet.{os.getpid()}.part", f"q.parquet.{gone.pid}.part", "r.parquet.x.part", "r.parquet.1.part"]
    for name in (*names, *stay):
        (tmp_path / name).mkdir() if folder else (tmp_path / name).touch()
    sweep_numbered(tmp_path / "r.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(stay)
    sweep_numbered(Path("/nowhere/at/all"))
