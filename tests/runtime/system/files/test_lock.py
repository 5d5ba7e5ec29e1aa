from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kanoclip.runtime.system.files.lock import Lock, LockedError, OutputLock

ROOT = Path(__file__).parents[4]
HOLD = """
import sys
from pathlib import Path
from kanoclip.runtime.system.files.lock import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_one_at_a_time(tmp_path):
    path = tmp_path / "x.lock"
    with Lock(path):
        with pytest.raises(LockedError):
            Lock(path)
        assert path.exists(), "the one that was refused took nothing away"
    assert not path.exists()
    Lock(path).release()


def test_a_killed_process_leaves_no_lock(tmp_path):
    path = tmp_path / "x.lock"
    process = holder(path)
    with pytest.raises(LockedError):
        Lock(path)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert path.exists(), "its file is left, and means nothing"
    with Lock(path):
        pass
    assert not path.exists()


def test_waiting_for_another_process(tmp_path):
    path = tmp_path / "x.lock"
    process = holder(path)
    waited = []

    def wait():
        waited.append(True)
        process.stdin.close()  # which ends it

    with Lock(path, wait=wait):
        assert waited == [True]
    process.stdout.close()
    assert process.wait() == 0


def test_many_threads_are_never_in_it_together(tmp_path):
    inside, most, done = [0], [0], []

    def work():
        for _ in range(200):
            try:
                with Lock(tmp_path / "x.lock"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
                    done.append(1)
            except LockedError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and done


def test_an_output_by_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("link").symlink_to("x.jsonl")
    first = OutputLock(Path("x.jsonl"))
    for name in ("x.jsonl", "./x.jsonl", "sub/../x.jsonl", str(tmp_path / "x.jsonl"), "link"):
        with pytest.raises(LockedError):
            OutputLock(Path(name))
    OutputLock(Path("y.jsonl")).release()
    first.release()
    first.release()
    assert sorted(os.listdir()) == ["link", "sub"]


def test_devices_and_pipes_are_not_locked(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        for one in [OutputLock(path), OutputLock(path)]:
            one.release()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_folder_that_takes_no_files_has_no_lock(tmp_path):
    OutputLock(tmp_path / "missing" / "x.jsonl").release()


def test_there_is_one_module_of_locks():
    """Any other would hold apart from these, or would not go with its process."""
    found = [
        str(path.relative_to(ROOT))
        for part in ("runtime", "export", "train", "benchmarks")
        for path in (ROOT / part).rglob("*.py")
        if re.search(r"\b(lockf|flock)\b", path.read_text())
    ]
    assert found == ["runtime/system/files/lock.py"]
