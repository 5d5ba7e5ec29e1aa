"""Processes that score, and die: by a signal, or of an image."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kanoclip.runtime.errors import BackendError, BundleError
from kanoclip.runtime.ops.score.bulk import score
from kanoclip.runtime.ops.score.listing import list_items
from kanoclip.runtime.ops.score.processes import DEATHS, STARTS, Processes
from kanoclip.runtime.ops.score.scorer import Scorer
from kanoclip.runtime.ops.score.work import WorkList, read_slice


@pytest.fixture
def work(pictures, tmp_path):
    return WorkList.write(tmp_path / "list", list_items(str(pictures)), 7)


def expected(engine, work):
    scorer = Scorer(engine)
    slices = [work.slice(number) for number in range(work.slices)]
    return {one.number: scorer.score(one.number, read_slice(work.path, one)) for one in slices}


def slices(work):
    return (work.slice(number) for number in range(work.slices))


def test_two_processes_give_what_one_does(make_engine, work):
    told = []
    pool = Processes(make_engine(), 2, work.path, lambda *names: told.append(names))
    parts = {part.number: part for part in pool.run(slices(work))}
    assert parts == expected(make_engine(), work)
    assert told == [("onnxruntime", "onnxruntime-cpu")] and pool.replaced == 0 and pool.pids() == []


def test_one_that_is_killed_is_replaced_and_its_slices_done_again(make_engine, work):
    pool = Processes(make_engine(), 1, work.path)
    parts = {}
    for part in pool.run(slices(work)):
        assert part.number not in parts
        parts[part.number] = part
        if len(parts) in (1, 3):
            os.kill(pool.pids()[0], signal.SIGKILL)
    assert parts == expected(make_engine(), work)
    assert 1 <= pool.replaced <= 2  # the second may have come after the last slice


def test_an_image_that_kills_is_left_out_and_told(make_engine, make_job, pictures, tmp_path):
    """A server that says nothing holds the process at this very image, and it is killed there each time."""
    names = [item.path for item in list_items(str(pictures))][:12]
    silent = socket.create_server(("127.0.0.1", 0))
    names[4] = f"ftp://127.0.0.1:{silent.getsockname()[1]}/deadly.png"
    pq.write_table(pa.table({"path": names}), tmp_path / "names.parquet")
    made = []

    def make(engine, folder, on_engine):
        made.append(Processes(engine, 1, folder.list_path, on_engine))
        return made[0]

    stop = threading.Event()
    killed = []

    def killer():
        while not stop.wait(0.1):
            process = next(iter(made[0]._processes), None) if made else None
            if (
                process is not None
                and process.ready
                and process.place.value == 4
                and process.tasks
                and process.pid not in killed
            ):
                time.sleep(0.3)  # it is not merely passing by
                if process.place.value == 4 and process.pid not in killed:
                    killed.append(process.pid)
                    os.kill(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        outcome = score(make_job(source=str(tmp_path / "names.parquet"), slice=6), make)
    finally:
        stop.set()
        thread.join()
        silent.close()
    rows = pq.read_table(outcome and tmp_path / "results.parquet").to_pylist()
    assert rows[4]["error"] == f"the process that scored it died of it (SIGKILL), {DEATHS} times"
    assert [row["path"] for row in rows] == names
    assert [n for n, row in enumerate(rows) if row["error"]] == [4]
    assert len(killed) == DEATHS + 1  # the first time it is not known which image it was


def test_an_engine_that_cannot_be_made(make_engine, work, toy_bundle):
    pool = Processes(make_engine(bundle_sha256="0" * 64), 2, work.path)
    with pytest.raises(BackendError, match=r"not the bundle that the run began with.*same command goes on"):
        list(pool.run(slices(work)))
    assert pool.pids() == []


def test_processes_that_do_not_come_up(make_engine, work, monkeypatch):
    from kanoclip.runtime.ops.score import processes

    monkeypatch.setattr(processes, "_serve", _die)
    with pytest.raises(BackendError, match=f"died {STARTS} times before it was ready \\(exit code 3\\)"):
        list(Processes(make_engine(), 1, work.path).run(slices(work)))


def _die(*given):
    os._exit(3)


def test_who_stops_taking_leaves_no_process(make_engine, work):
    pool = Processes(make_engine(), 1, work.path)
    parts = pool.run(slices(work))
    next(parts)
    [pid] = pool.pids()
    parts.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_bundles_are_told_apart(make_engine):
    with pytest.raises(BundleError):
        Scorer(make_engine(bundle_sha256="1" * 64))
