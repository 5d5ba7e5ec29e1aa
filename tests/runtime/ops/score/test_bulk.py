"""A run from source to table, stopped wherever it can be; scored in this process, which is quick."""

from __future__ import annotations

import errno
import json
import shutil
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import KanoclipError, SettingsError, SinkError, SourceError
from kanoclip.runtime.ops.score import run_folder
from kanoclip.runtime.ops.score.bulk import score
from kanoclip.runtime.ops.score.merge import read_run
from kanoclip.runtime.ops.score.run_folder import RunFolder
from kanoclip.runtime.ops.score.scorer import Scorer
from kanoclip.runtime.ops.score.table import MEAN_KEY, unpack_sum
from kanoclip.runtime.system.files.own import MARK


class Stop(Exception):
    """What a kill is to the code that it hits."""


class Here:
    """Scores in this process, backwards, and stops after some slices."""

    def __init__(self, engine, folder, on_engine, stop_after):
        self.scorer, self.folder, self.on_engine, self.stop_after = Scorer(engine), folder, on_engine, stop_after
        self.done = []

    def run(self, slices, on_tick):
        self.on_engine(self.scorer.backend, self.scorer.runs_on)
        for where in reversed(list(slices)):
            if len(self.done) == self.stop_after:
                raise Stop
            on_tick(1)
            self.done.append(where.number)
            yield self.scorer.score(where.number, self.folder.items(where))


class Pools:
    """Makes them, and keeps them."""

    def __init__(self, stop_after=None):
        self.made, self.stop_after = [], stop_after

    def __call__(self, engine, folder, on_engine):
        self.made.append(Here(engine, folder, on_engine, self.stop_after))
        return self.made[-1]


def test_a_table(make_job):
    job = make_job()
    states = []
    outcome = score(job, Pools(), states.append)
    table = pq.read_table(job.output)
    assert (outcome.counts.images, outcome.counts.unscored, outcome.earlier) == (40, 1, 0) == (table.num_rows, 1, 0)
    assert outcome.counts.anomalous == sum(filter(None, table["is_anomalous"].to_pylist())) > 0
    assert [path.rpartition("/")[2] for path in table["path"].to_pylist()] == [f"{n}.png" for n in range(40)]
    assert not RunFolder(job.output).root.exists()
    assert list(dict.fromkeys(state.step for state in states)) == ["listing", "scoring", "merging"]
    assert states[-1].step == "merging" and states[-1].done == states[-1].total == 40
    run = read_run(job.output)
    assert run["pictures"] == 40 and run["backend"] == "onnxruntime" and run["device"] == "cpu"
    assert [block["rows"] for block in run["blocks"]] == [7, 7, 7, 7, 7, 5]
    sums = unpack_sum(pq.read_metadata(job.output).metadata[MEAN_KEY])
    means = table["brightness"].to_numpy()
    assert sums.sum() / 64**2 / 39 / 255 == pytest.approx(np.nanmean(means), abs=0.01)


@pytest.mark.parametrize("kills", [[0], [1], [2, 2, 1], [5], [1, 1, 1, 1, 1, 1]])
def test_a_run_that_was_stopped_makes_the_same_bytes(make_job, tmp_path, kills):
    straight = make_job(output=tmp_path / "straight.parquet")
    score(straight, Pools())
    job = make_job(output=tmp_path / "stopped.parquet")
    done = []
    for stop_after in kills:
        pools = Pools(stop_after)
        with suppress(Stop):
            score(job, pools)
        done += pools.made[0].done
    if not job.output.exists():
        pools = Pools()
        outcome = score(job, pools)
        done += pools.made[0].done
        assert outcome.earlier == 40 - sum(5 if number == 5 else 7 for number in pools.made[0].done)
    assert sorted(done) == list(range(6))  # none twice, none lost
    assert job.output.read_bytes() == straight.output.read_bytes()


def test_a_table_that_is_there_is_not_made_again(make_job):
    job = make_job()
    first = score(job, Pools())
    before = job.output.stat().st_mtime_ns
    again = score(job, Pools(0))
    assert again.counts == first.counts and again.earlier == 40 and again.runs_on is None
    assert job.output.stat().st_mtime_ns == before
    assert not RunFolder(job.output).root.exists()
    assert score(replace(job, restart=True), Pools()).earlier == 0


def test_a_stop_while_merging(make_job, monkeypatch):
    job = make_job()

    def stop(*args):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("kanoclip.runtime.ops.score.bulk.merge", stop)
        with pytest.raises(Stop):
            score(job, Pools())
    assert not job.output.exists()
    outcome = score(job, Pools(0))  # nothing is left to be scored
    assert outcome.earlier == 40 and outcome.counts.images == 40


def test_half_a_part_is_scored_again(make_job, tmp_path):
    straight = make_job(output=tmp_path / "straight.parquet")
    score(straight, Pools())
    job = make_job()
    with pytest.raises(Stop):
        score(job, Pools(4))
    folder = RunFolder(job.output)
    whole = folder.part_path(5).read_bytes()
    folder.part_path(5).write_bytes(whole[: len(whole) // 2])  # what a power cut leaves
    folder.part_path(4).write_bytes(folder.part_path(5).read_bytes()[:0])
    pools = Pools()
    assert score(job, pools).earlier == 14
    assert pools.made[0].done == [5, 4, 1, 0]
    assert job.output.read_bytes() == straight.output.read_bytes()


def changed_settings(job, **decision):
    return replace(job, engine=replace(job.engine, settings=Settings().overridden(Decision(**decision))))


def test_another_run_is_not_gone_on_with(make_job, make_toy_bundle, make_engine, pictures, tmp_path):
    job = make_job()
    with pytest.raises(Stop):
        score(job, Pools(2))
    other = make_engine(bundle=make_toy_bundle(tmp_path / "other.kanoclip", size=16))
    for different, told in (
        (replace(job, slice=8), r"slice \(7, now 8\)"),
        (replace(job, source=f"{pictures}/line0"), r"the images \(40, now 20\)"),
        (replace(job, engine=replace(job.engine, threads=2)), r"threads \(1, now 2\)"),
        (replace(job, engine=other), "bundle_sha256"),
        (changed_settings(job, threshold=0.9), r"other threshold of \w+ \(0.5, now 0.9\)"),
        (replace(job, engine=replace(job.engine, maps=True), maps=tmp_path / "maps"), "maps"),
    ):
        with pytest.raises(SettingsError, match=f"begun with .*{told}.*--restart"):
            score(different, Pools(0))
    pools = Pools()
    assert score(job, pools).earlier == 12 and len(pools.made[0].done) == 4  # which all those left as it was
    with pytest.raises(SinkError, match=r"begun with other slice \(7, now 8\).*--restart"):
        score(replace(job, slice=8), Pools(0))
    assert score(replace(job, slice=8, restart=True), Pools()).counts.images == 40


def test_auto_stays_what_it_became(make_job):
    job = make_job()
    job = replace(job, engine=replace(job.engine, backend="auto", device="auto"))
    with pytest.raises(Stop):
        score(job, Pools(1))
    stored = json.loads((RunFolder(job.output).root / "run.json").read_text())
    assert stored["backend"] != "auto" and stored["device"] == "cpu"
    pools = Pools()
    assert score(job, pools).earlier == 5
    assert pools.made[0].scorer.backend == stored["backend"]


def test_a_run_begun_on_a_gpu_does_not_go_on_without(make_job):
    job = make_job()
    job = replace(job, engine=replace(job.engine, device="auto"))
    with pytest.raises(Stop):
        score(job, Pools(1))
    path = RunFolder(job.output).root / "run.json"
    path.write_text(path.read_text().replace('"cpu"', '"cuda"'))
    with pytest.raises(SettingsError, match="begun on cuda, and this is onnxruntime-cpu"):
        score(job, Pools())


def test_images_that_come_and_go(make_job, pictures, tmp_path):
    mine = shutil.copytree(pictures, tmp_path / "mine")
    job = make_job(source=str(mine))
    with pytest.raises(Stop):
        score(job, Pools(2))
    shutil.copy(mine / "line0" / "1.png", mine / "line0" / "1b.png")
    with pytest.raises(SettingsError, match=r"the images \(40, now 41\)"):
        score(job, Pools())
    (mine / "line0" / "1b.png").unlink()
    assert score(job, Pools()).earlier == 12


def test_nothing_is_left_where_nothing_began(make_job, tmp_path):
    job = make_job(source=str(tmp_path / "nowhere"))
    with pytest.raises(SourceError):
        score(job, Pools())

    def refuse(engine, folder, on_engine):
        raise KanoclipError("no engine")

    with pytest.raises(KanoclipError, match="no engine"):
        score(make_job(), refuse)
    assert not RunFolder(job.output).root.exists()


def test_two_at_once_are_refused(make_job):
    job = make_job()
    with RunFolder(job.output).held(), pytest.raises(SinkError, match="being made by another"):
        score(job, Pools())


def test_another_file_is_not_overwritten(make_job):
    job = make_job()
    job.output.write_bytes(b"mine")
    with pytest.raises(SinkError, match="no table of kanoclip-score"):
        score(job, Pools())
    assert job.output.read_bytes() == b"mine"


def test_a_full_disk(make_job, monkeypatch):
    job = make_job()
    write, left = run_folder.replace_file, [4]

    def full(path, content, *, durable=False):
        if path.suffix == ".parquet":
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "replace_file", full)
        with pytest.raises(SinkError, match=r"No space left on device.*same command goes on"):
            score(job, Pools())
    assert score(job, Pools()).earlier == 26


def test_maps_come_before_rows(make_job, tmp_path):
    maps = tmp_path / "maps"
    job = make_job(maps=maps)
    score(job, Pools())
    names = [name for name in pq.read_table(job.output)["map_file"].to_pylist() if name]
    assert len(names) == 39 and all((maps / name).is_file() for name in names)
    assert not list(maps.rglob("*.part"))


def test_what_a_killed_process_left_of_a_map_goes(make_job, tmp_path, monkeypatch):
    maps = tmp_path / "maps"
    job = make_job(maps=maps)

    def killed(path, content, *, durable=False):
        if path.suffix == ".parquet" and path.parent.name == "parts":
            (maps / ".9.png.4711.part").write_bytes(b"half")
            (maps / ".somebody's").write_bytes(b"whole")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        replace_file(path, content, durable=durable)

    replace_file = run_folder.replace_file
    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "replace_file", killed)
        with pytest.raises(SinkError):
            score(job, Pools())
    score(job, Pools())
    assert [path.name for path in maps.rglob(".*") if path.name not in (MARK, run_folder.MAPS_OF)] == [".somebody's"]
