"""The same on a Ray cluster: Ray Data hands slices to actors, each with an engine of its own.

Slices of a node that is lost are done again on another one.

Images must be at the same path on every node: on a shared folder, or behind a URL. The bundle travels by itself.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import SUFFIX, Bundle
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import BackendError, KanoclipError, SourceError, one_line
from kanoclip.runtime.ops.score.listing import Item
from kanoclip.runtime.ops.score.run_folder import GOES_ON
from kanoclip.runtime.ops.score.scorer import Engine, Part, Scorer
from kanoclip.runtime.ops.score.work import Slice
from kanoclip.runtime.system.installed import installed_versions
from kanoclip.runtime.system.paths import cache_folder

LOCAL = "local"
"""The address of a cluster that is this machine alone, started for the run."""
ANSWER_S = 10.0
_PACKAGE = "kanoclip-edge"


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yields Ray, connected to a cluster while the block lasts.

    Args:
        address: `HOST:PORT` of a cluster, `auto` for the one that runs on this machine, or `local`.

    Raises:
        SourceError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # asks nobody, tells nobody
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise SourceError("Ray is not installed: pip install 'kanoclip-edge[score,ray]'") from error
    mine = not ray.is_initialized()
    if mine:
        _check_answers(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise SourceError(f"no Ray cluster at {address} ({one_line(error)}): start one with `ray start`") from error
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)  # kanoclip-score reports what it does
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False  # there is one of ours
    try:
        yield ray
    finally:
        context.enable_progress_bars = before
        if mine:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuses an address where nobody listens; Ray itself would wait for minutes.

    Raises:
        SourceError: Nobody answers, or it is no address.
    """
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise SourceError(f"--ray {address}: give HOST:PORT, auto for the cluster of this machine, or nothing")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise SourceError(f"no Ray cluster at {address} ({one_line(error)}): start one with `ray start`") from error


class Cluster:
    """Scores slices on a cluster.

    Args:
        ray: As `connected` gives it.
        engine: What scores; its bundle need be on this machine only. A backend `auto` is settled by one actor, for all.
        count: Actors at the most; None for as many as the cluster has cores for, or GPUs.
        items: Gives a slice's images.
        on_engine: As of `Processes`.
    """

    def __init__(
        self,
        ray: Any,
        engine: Engine,
        count: int | None,
        items: Callable[[Slice], list[Item]],
        on_engine: Callable[[str, str], None] = lambda backend, runs_on: None,
    ) -> None:
        self._ray, self._engine, self._items, self._on_engine = ray, engine, items, on_engine
        gpu = engine.device.startswith("cuda")
        self._needs = {"num_gpus": 1, "num_cpus": 1} if gpu else {"num_cpus": engine.threads}
        has = ray.cluster_resources().get("GPU" if gpu else "CPU", 0)
        room = int(has // (1 if gpu else engine.threads))
        if room < 1:
            raise BackendError(
                f"this Ray cluster has no room for an engine: it has {has:g} {'GPUs' if gpu else 'cores'}"
            )
        self.count = room if count is None else min(count, room)

    def run(self, slices: Iterable[Slice], on_tick: Callable[[int], None] = lambda begun: None) -> Iterator[Part]:
        """Yields each slice's part, in the order in which they are done; arguments as of `Processes.run`.

        Raises:
            KanoclipError: The engine fails, or the cluster does. What was yielded stays good.
        """
        ray = self._ray
        import pyarrow as pa

        bundle = {
            name: ray.put(np.frombuffer((self._engine.bundle / name).read_bytes(), np.uint8))
            for name in (MANIFEST_NAME, *Bundle.open(self._engine.bundle).manifest.files)
        }
        version = installed_versions([_PACKAGE])[_PACKAGE]
        try:
            settle = ray.remote(max_retries=3, **self._needs)(_settle)
            backend, runs_on, failure = ray.get(settle.remote(self._engine, bundle, version))
            if failure is not None:
                raise BackendError(failure)
            self._on_engine(backend, runs_on)
            # One block a slice, each put away as it is made: no process holds the whole list.
            blocks = [
                ray.put(pa.table({"number": [one.number], "paths": [paths], "classes": [classes]}))
                for one in slices
                for paths, classes in [_columns(self._items(one))]
            ]
            if not blocks:
                return
            actors = min(self.count, len(blocks))
            parts = ray.data.from_arrow_refs(blocks).map_batches(
                _Actor,
                fn_constructor_args=(replace(self._engine, backend=backend), bundle, version),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
                **self._needs,
            )
            for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    if row["failure"] is not None:
                        raise BackendError(f"{row['failure']}; {GOES_ON}")
                    yield Part(
                        row["number"],
                        row["table"],
                        dict(zip(row["names"], row["maps"], strict=True)),
                        row["unscored"],
                        row["anomalous"],
                    )
                on_tick(0)
        except ray.exceptions.RayError as error:
            raise BackendError(f"the Ray cluster failed ({one_line(error)}); {GOES_ON}") from error


class _Actor:
    """Holds an engine on some node."""

    def __init__(self, engine: Engine, bundle: dict[str, Any], version: str) -> None:
        self._scorer: Scorer | None = None
        self._failure: str | None = None
        try:
            self._scorer = Scorer(_here(engine, bundle, version))
        except KanoclipError as error:  # an error here would be tried again for ever
            self._failure = str(error)

    def __call__(self, batch: Any) -> Any:
        """Scores the slice in a batch of one row."""
        import pyarrow as pa

        [row] = batch.to_pylist()
        part = Part(row["number"], b"", {}, 0, 0)
        failure = self._failure
        if self._scorer is not None:
            try:
                items = [Item(*one) for one in zip(row["paths"], row["classes"], strict=True)]
                part = self._scorer.score(row["number"], items)
            except KanoclipError as error:
                failure = str(error)
        return pa.table(
            {
                "number": [part.number],
                "table": pa.array([part.table], pa.large_binary()),
                "names": pa.array([list(part.maps)], pa.list_(pa.string())),
                "maps": pa.array([list(part.maps.values())], pa.list_(pa.large_binary())),
                "unscored": [part.unscored],
                "anomalous": [part.anomalous],
                "failure": pa.array([failure], pa.string()),
            }
        )


def _settle(engine: Engine, bundle: dict[str, Any], version: str) -> tuple[str, str, str | None]:
    """Which backend runs, on some node; or why none does."""
    try:
        scorer = Scorer(_here(engine, bundle, version))
    except KanoclipError as error:
        return "", "", str(error)
    try:
        return scorer.backend, scorer.runs_on, None
    finally:
        scorer.close()


def _here(engine: Engine, bundle: dict[str, Any], version: str) -> Engine:
    """The engine with a bundle that is on this node: brought here once, and saved under its digest.

    Raises:
        KanoclipError: The node has another version of this package, or no room.
    """
    found = installed_versions([_PACKAGE])[_PACKAGE]
    if found != version:
        raise BackendError(f"a node has {_PACKAGE} {found}, this machine {version}: install the same on all")
    try:
        folder = cache_folder("score-bundles")
        place = folder / f"{engine.bundle_sha256}{SUFFIX}"
        if not place.exists():
            import ray

            beside = Path(tempfile.mkdtemp(dir=folder))
            try:
                for name, content in bundle.items():
                    path = beside / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(ray.get(content).data)
                beside.rename(place)
            except OSError:
                shutil.rmtree(beside, ignore_errors=True)
                if not place.exists():  # or another actor was first
                    raise
    except OSError as error:
        raise BackendError(f"the bundle cannot be saved on a node ({one_line(error)})") from error
    return replace(engine, bundle=place)


def _columns(items: list[Item]) -> tuple[list[str], list[str | None]]:
    return [item.path for item in items], [item.class_name for item in items]
