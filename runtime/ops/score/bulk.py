"""A run of bulk scoring from its source to its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.settings.thresholds import limits_of
from kanoclip.runtime.engines.triton.address import is_triton
from kanoclip.runtime.errors import SettingsError, SinkError
from kanoclip.runtime.ops.score.listing import list_items
from kanoclip.runtime.ops.score.merge import Counts, merge, read_run
from kanoclip.runtime.ops.score.run_folder import Identity, RunFolder
from kanoclip.runtime.ops.score.scorer import Engine, Part
from kanoclip.runtime.ops.score.work import Slice, WorkList
from kanoclip.runtime.system.installed import installed_versions

SLICE = 64


class Pool(Protocol):
    """What scores slices: `Processes` or `Cluster`."""

    def run(self, slices: Iterable[Slice], on_tick: Callable[[int], None]) -> Iterator[Part]:
        """Yields each slice's part; see `Processes.run`."""
        ...


MakePool = Callable[[Engine, RunFolder, Callable[[str, str], None]], Pool]
"""Makes what scores, given the engine, the run's folder, and whom to tell which backend it became."""


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        source: As `list_items` takes it.
        output: The table.
        engine: What scores.
        column: Of the paths in a table.
        class_column: Of the classes in a table.
        slice: Images in a slice.
        maps: Folder for whole maps; None for none.
        restart: Throw away what was begun, and the table that is there.
    """

    source: str
    output: Path
    engine: Engine
    column: str = "path"
    class_column: str | None = None
    slice: int = SLICE
    maps: Path | None = None
    restart: bool = False


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        step: `listing`, `scoring` or `merging`.
        done: Images listed, scored or merged.
        total: Of how many; None while that is not known.
        earlier: Images that were scored before this start.
        unscored: Images with an error, since this start.
        anomalous: Images that are, since this start.
    """

    step: str
    done: int
    total: int | None = None
    earlier: int = 0
    unscored: int = 0
    anomalous: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        counts: What is in the table.
        earlier: Images that were scored before this start.
        runs_on: Engine and device; None where nothing was left to score.
        wall_s: Seconds of this start.
        scoring_s: Seconds from the first process that was ready to the last part.
    """

    counts: Counts
    earlier: int
    runs_on: str | None
    wall_s: float
    scoring_s: float


def score(job: Job, make_pool: MakePool, on_progress: Callable[[State], None] = lambda state: None) -> Outcome:
    """Scores all images of a source into one table, or goes on where an earlier start was stopped.

    Args:
        job: What is asked for.
        make_pool: Who scores.
        on_progress: Called often, with how far it is.

    Raises:
        KanoclipError: The source, the output or the engine is no good, or something else was begun at this output. What
            was scored stays on disk, and the same call goes on.
    """
    started = perf_counter()
    folder = RunFolder(job.output)
    with folder.held():
        try:
            return _Run(job, folder, make_pool, on_progress, started).outcome()
        finally:
            if folder.stored() is None:  # done, or never begun
                folder.remove()


class _Run:
    """One start of a run."""

    def __init__(
        self,
        job: Job,
        folder: RunFolder,
        make_pool: MakePool,
        on_progress: Callable[[State], None],
        started: float,
    ) -> None:
        self._job, self._folder, self._make_pool, self._on_progress, self._started = (
            job,
            folder,
            make_pool,
            on_progress,
            started,
        )
        self._runs_on: str | None = None
        self._ready = started

    def outcome(self) -> Outcome:
        """Does it."""
        job, folder = self._job, self._folder
        stored = None if job.restart else folder.stored()
        if job.restart:
            folder.forget()
        work = WorkList.write(
            folder.list_path.with_suffix(".new"),
            list_items(job.source, job.column, job.class_column),
            job.slice,
            lambda count: self._on_progress(State("listing", count)),
        )
        wanted = identity(job, work)
        if stored is None and job.output.exists() and not job.restart:
            counts = _finished(job, wanted)
            return Outcome(counts, counts.images, None, perf_counter() - self._started, 0.0)
        done: set[int] = set()
        if stored is None:
            folder.forget()
        else:
            wanted = _as_begun(job, wanted, stored)
            done = folder.done(work, job.maps)
        work.path.replace(folder.list_path)
        earlier = sum(work.slice(number).count for number in done)
        if len(done) < work.slices:
            wanted = self._score(work, wanted, done, earlier)
        scoring_s = perf_counter() - self._ready
        counts = merge(
            folder,
            work.slices,
            wanted.as_json(),
            lambda number: self._on_progress(State("merging", min(number * work.size, work.count), work.count)),
        )
        folder.forget()
        return Outcome(counts, earlier, self._runs_on, perf_counter() - self._started, scoring_s)

    def _score(self, work: WorkList, wanted: Identity, done: set[int], earlier: int) -> Identity:
        """Scores what is left; returns what the run became once its engine was known."""
        state = State("scoring", earlier, work.count, earlier)

        def settled(backend: str, runs_on: str) -> None:
            nonlocal wanted
            self._runs_on, self._ready = runs_on, perf_counter()
            device = wanted.device if is_triton(backend) else runs_on.rpartition("-")[2]
            runs = replace(wanted, backend=backend, device=device)
            if wanted.device not in ("auto", runs.device):
                raise SettingsError(
                    f"{self._job.output} was begun on {wanted.device}, and this is {runs_on}: --device {wanted.device} "
                    "goes on, or begin anew with --restart"
                )
            wanted = runs
            self._folder.begin(wanted, self._job.maps)

        def ticked(begun: int) -> None:
            self._on_progress(replace(state, done=min(state.done + begun, work.count)))

        self._on_progress(state)
        pool = self._make_pool(replace(self._job.engine, backend=wanted.backend), self._folder, settled)
        todo = (work.slice(number) for number in range(work.slices) if number not in done)
        for part in pool.run(todo, ticked):
            self._folder.commit(part, self._job.maps)
            state = replace(
                state,
                done=state.done + work.slice(part.number).count,
                unscored=state.unscored + part.unscored,
                anomalous=state.anomalous + part.anomalous,
            )
            self._on_progress(state)
        return wanted


def identity(job: Job, work: WorkList) -> Identity:
    """What the table depends on; the backend is as asked for.

    Raises:
        KanoclipError: The bundle or the settings are no good.
    """
    engine = job.engine
    bundle = Bundle.open(engine.bundle)
    decisions: dict[str, Any] = {}
    for name in bundle.manifest.classes:
        limits = limits_of(bundle, name, engine.settings.decision(name))
        decisions[name] = {
            "threshold": limits.thresholds.image,
            "pixel_threshold": limits.thresholds.pixel,
            "min_area": limits.thresholds.min_area,
            "roi": None if limits.roi is None else limits.roi.digest(),
        }
    return Identity(
        list_sha256=work.digest,
        pictures=work.count,
        slice=work.size,
        bundle=bundle.manifest.name,
        bundle_sha256=engine.bundle_sha256,
        backend=engine.backend,
        device=engine.device.partition(":")[0],
        threads=engine.threads,
        class_name=engine.class_name,
        decisions=decisions,
        maps=engine.maps,
        reading=asdict(engine.reading),
        version=installed_versions(["kanoclip-edge"])["kanoclip-edge"],
    )


def _as_begun(job: Job, wanted: Identity, stored: dict[str, Any]) -> Identity:
    """What is wanted, once it is what was begun; `auto` is what it became then.

    Raises:
        SettingsError: The run is another one.
    """
    settled = {
        name: stored[name]
        for name in ("backend", "device")
        if getattr(wanted, name) == "auto" and isinstance(stored.get(name), str)
    }
    wanted = replace(wanted, **settled)
    differs = wanted.differs(stored)
    if differs:
        raise SettingsError(
            f"{job.output} was begun with other {'; '.join(differs)}: ask for the same as then, choose another "
            "--output, or begin anew with --restart"
        )
    return wanted


def _finished(job: Job, wanted: Identity) -> Counts:
    """What is in the table that is there already, where it is what would be made.

    Raises:
        SinkError: It is something else.
    """
    try:
        run = read_run(job.output)
    except SinkError as error:
        raise SinkError(f"{error}, and would be overwritten: choose another --output, or --restart") from error
    try:
        _as_begun(job, wanted, run)
        return Counts(int(run["pictures"]), int(run["unscored"]), int(run["anomalous"]))
    except (SettingsError, KeyError, TypeError, ValueError) as error:
        raise SinkError(f"{error}") from error
