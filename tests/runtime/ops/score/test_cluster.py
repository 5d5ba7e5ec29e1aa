"""A real Ray cluster of two nodes on this machine, one of which is lost."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kanoclip.runtime.errors import BackendError, SourceError
from kanoclip.runtime.ops.score.bulk import score
from kanoclip.runtime.ops.score.cluster import Cluster, connected
from kanoclip.runtime.ops.score.listing import list_items
from kanoclip.runtime.ops.score.processes import Processes

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

SLICES = 120


@pytest.fixture
def nodes(monkeypatch):
    """A head and another node, of one core each; yields the cluster and the other node."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster, other
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def long_job(make_job, pictures, tmp_path):
    """600 rows in 120 slices: the same images again and again, the bad one among them."""
    paths = [item.path for item in list_items(str(pictures))]
    pq.write_table(pa.table({"path": [paths[n % 40] for n in range(SLICES * 5)]}), tmp_path / "list.parquet")
    return make_job(source=str(tmp_path / "list.parquet"), slice=5, output=tmp_path / "cluster.parquet")


def on_one_machine(job):
    maps = None if job.maps is None else job.maps.with_name("straight-maps")  # a folder holds the maps of one table
    straight = replace(job, output=job.output.with_name("straight.parquet"), maps=maps)
    score(straight, lambda engine, folder, told: Processes(engine, 1, folder.list_path, told))
    return straight.output.read_bytes()


def alive_on(ray, node):
    """Actors of ours on a node."""
    actors = ray._private.state.actors().values()
    return [one for one in actors if one["Address"]["NodeID"] == node and one["State"] == "ALIVE"]


def test_a_node_is_lost_in_the_middle(nodes, long_job, tmp_path):
    cluster, other = nodes
    committed, lost_at = [], []
    maps = replace(long_job, maps=tmp_path / "maps", engine=replace(long_job.engine, maps=True))
    with connected(cluster.address) as ray:

        def make(engine, folder, told):
            pool = Cluster(ray, engine, None, folder.items, told)
            assert pool.count == 2
            run = pool.run

            def watched(slices, on_tick):
                for part in run(slices, on_tick):
                    committed.append(part.number)
                    if not lost_at and len(committed) >= 20 and alive_on(ray, other.node_id):
                        lost_at.append(len(committed))
                        cluster.remove_node(other, allow_graceful=False)
                    yield part

            pool.run = watched
            return pool

        outcome = score(maps, make)
    assert lost_at and lost_at[0] < SLICES - 20, lost_at  # it was at work, and much was left
    assert sorted(committed) == list(range(SLICES))  # none twice, none lost
    assert outcome.counts.images == 600 and outcome.counts.unscored == 15
    assert maps.output.read_bytes() == on_one_machine(maps)
    assert sum(1 for _ in (tmp_path / "maps").rglob("*.png")) == 585


def test_a_cluster_goes_on_where_processes_stopped(nodes, long_job):
    """And the other way round: what is done is done, whoever did it."""
    cluster, _ = nodes

    class Enough(Exception):
        pass

    def stopped(pool, count):
        run = pool.run

        def some(slices, on_tick):
            for number, part in enumerate(run(slices, on_tick)):
                if number == count:
                    raise Enough
                yield part

        pool.run = some
        return pool

    with pytest.raises(Enough):
        score(long_job, lambda engine, folder, told: stopped(Processes(engine, 1, folder.list_path, told), 30))
    with connected(cluster.address) as ray:
        with pytest.raises(Enough):
            score(long_job, lambda engine, folder, told: stopped(Cluster(ray, engine, 1, folder.items, told), 30))
        outcome = score(long_job, lambda engine, folder, told: Cluster(ray, engine, 2, folder.items, told))
        assert outcome.earlier == 300

        broken = replace(long_job, restart=True, engine=replace(long_job.engine, bundle_sha256="0" * 64))
        with pytest.raises(BackendError, match="not the bundle that the run began with"):
            score(broken, lambda engine, folder, told: Cluster(ray, engine, 2, folder.items, told))
        with pytest.raises(BackendError, match="no room for an engine: it has 0 GPUs"):
            Cluster(ray, replace(long_job.engine, device="cuda"), None, list)
    score(long_job, lambda engine, folder, told: Processes(engine, 1, folder.list_path, told))
    assert long_job.output.read_bytes() == on_one_machine(long_job)


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_no_cluster_there(monkeypatch, address):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SourceError, match=f"no Ray cluster at {address}.*ray start"), connected(address):
        pass


@pytest.mark.parametrize("address", ["somewhere", "host:", ":6379", "host:x"])
def test_what_is_no_address(address):
    with pytest.raises(SourceError, match="give HOST:PORT"), connected(address):
        pass
