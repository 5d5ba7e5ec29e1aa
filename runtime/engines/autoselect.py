"""Which engine is the fastest on this processor: measured once for a bundle, and remembered.

Speed differs by processor, graph and version more than any rule could say, and so do answers: an engine is taken only
if it agrees with the plain operators on the bundle's own images.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines.base import Backend
from kanoclip.runtime.engines.inputs import Frames, Indices
from kanoclip.runtime.engines.probe import PROBED, Probe, command_for
from kanoclip.runtime.engines.reference import Reference
from kanoclip.runtime.errors import BackendError, BundleError
from kanoclip.runtime.system.files.regular import read_small
from kanoclip.runtime.system.hardware import cpu_features, cpu_name, own_cores
from kanoclip.runtime.system.installed import installed_versions, is_installed
from kanoclip.runtime.system.paths import cache_folder, replace_file

FIRST = "onnxruntime"
"""What runs unless another engine is clearly faster, and what the reference needs."""
MARGIN = 0.05
"""Share of the time by which another engine must be faster: less is noise."""
ROUNDS, LEAST_ROUNDS, BUDGET_S = 9, 3, 5.0
"""Timed runs of each engine; after so many seconds, no more than the least."""
PAUSE_S = 0.02
"""Before each timed run: ONNX Runtime's threads go on spinning for a while after a run of theirs."""
_PACKAGES = ("kanoclip-edge", "onnxruntime", "onnxruntime-gpu", "openvino")  # a new version of ours may run faster

log = logging.getLogger(__name__)
Create = Callable[[str], Backend]
"""Makes the engine of a name, or raises BackendError."""
StartProbe = Callable[[str], Probe]
"""Starts the probe of the engine of a name."""


@dataclass(frozen=True)
class Choice:
    """What a trial came to.

    Attributes:
        backend: The engine taken, as `create_backend` names it.
        milliseconds: Median time of a run of each engine that agrees with the reference.
        left_out: Why each of the others was not timed.
    """

    backend: str
    milliseconds: Mapping[str, float]
    left_out: Mapping[str, str] = field(default_factory=dict)


def choose_backend(
    bundle: Bundle, device: str, threads: int | None, create: Create, workers: int = 1, *, trial: bool = True
) -> Backend:
    """Makes the fastest engine for the processor that gives the bundle's answers.

    There is a trial only where two engines are installed and the bundle has images and bounds to score by; otherwise
    ONNX Runtime runs, or OpenVINO where it alone is installed. What is done is logged: the start and outcome of a trial
    as information, engines that do not work as warnings.

    Args:
        bundle: What to run.
        device: `cpu`, or `auto`: then ONNX Runtime runs on the GPU where it has one.
        threads: CPU threads, None for all cores of this process.
        create: Makes an engine on that device.
        workers: How many threads may run it at a time. One thread is timed: all of them take as long.
        trial: Whether to try them where none is remembered; else ONNX Runtime runs, and the next start may try.

    Raises:
        BackendError: No engine can be made, or ONNX Runtime cannot run the graph.
    """
    installed = [name for name in (FIRST, "openvino") if is_installed(name)]
    if len(installed) < 2:
        return create(*installed or [FIRST])
    try:
        reference = Reference(bundle)
    except BundleError:
        return create(FIRST)
    key = _key(bundle, device, threads, workers)
    if (known := _read(key)) is not None:
        try:
            return create(known)
        except BackendError as error:  # it worked when it was tried
            log.warning("%s", error)
    if not trial:
        return create(FIRST)
    names = _candidates(device)
    if len(names) < 2:
        return create(*names)
    backend, choice = _try_all(
        reference, names, create, lambda name: Probe(command_for(bundle, name, device, threads, workers))
    )
    if choice is not None:
        _write(key, choice)
    return backend


def _candidates(device: str) -> list[str]:
    """What to try, the most exact and best known first: a later one must be faster by the margin."""
    from kanoclip.runtime.engines.onnxruntime import backend as onnxruntime

    try:
        if onnxruntime.has_cuda() and device == "auto":
            return [FIRST]
    except BackendError as error:
        log.warning("%s", error)
        return ["openvino"]
    try:
        return cpu_engines()
    except BackendError as error:
        log.warning("%s", error)
        return [FIRST]


def cpu_engines() -> list[str]:
    """Every engine that this processor has, where OpenVINO is installed; the most exact and best known first.

    Raises:
        BackendError: OpenVINO is not installed or broken, or cannot use this processor.
    """
    from kanoclip.runtime.engines import openvino

    return [FIRST, "openvino", *(["openvino-bf16"] if openvino.has_bf16() else [])]


def _try_all(
    reference: Reference, names: Sequence[str], create: Create, probe: StartProbe
) -> tuple[Backend, Choice | None]:
    """Runs the trial; there is no choice where no engine agrees, so that the next start says so again."""
    log.info("choosing the engine for this bundle and processor, once: %s", ", ".join(names))
    opened: dict[str, Backend] = {}
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        # They run beside the reference and the other engines, and end before anything is timed.
        probes = {name: stack.enter_context(closing(probe(name))) for name in names if name in PROBED}
        stack.callback(_close_all, opened)
        _ = reference.answers  # before the engines are loaded: a large graph need not fit once more
        for name in names:
            try:
                if name in probes:
                    probes[name].wait()
                opened[name] = create(name)
                found = reference.compare(reference.run(opened[name]))
            except BackendError as error:
                left_out[name] = str(error)
            else:
                if found.agrees:
                    continue
                left_out[name] = f"its answers drift on this processor: {found.drifts()}"
            log.warning("%s is left out: %s", name, left_out[name])
            if name in opened:
                opened.pop(name).close()
        if not opened:
            log.warning("no engine gives the bundle's answers on this processor: see kanoclip-doctor")
            return create(FIRST), None
        spent = _time(opened, reference.one_run())
        chosen = _fastest(spent)
        log.info("%s", _summary(chosen, spent, opened))
        return opened.pop(chosen), Choice(chosen, spent, left_out)


def _close_all(losers: Mapping[str, Backend]) -> None:
    for loser in losers.values():
        loser.close()


def _time(engines: Mapping[str, Backend], batch: tuple[Frames, Indices | None]) -> dict[str, float]:
    """Median milliseconds of a run, in turns: what else this machine does in the meantime then hits all of them."""
    spent: dict[str, list[float]] = {name: [] for name in engines}
    until = perf_counter() + BUDGET_S
    for number in range(ROUNDS):
        if number >= LEAST_ROUNDS and perf_counter() > until:
            break
        for name, engine in engines.items():
            sleep(PAUSE_S)
            started = perf_counter()
            engine.run(*batch)
            spent[name].append((perf_counter() - started) * 1e3)
    return {name: float(np.median(times)) for name, times in spent.items()}


def _fastest(spent: Mapping[str, float]) -> str:
    """The first, unless a later one is faster by the margin than what would be taken so far."""
    first, *others = spent
    for name in others:
        if spent[name] < spent[first] * (1 - MARGIN):
            first = name
    return first


def _summary(chosen: str, spent: Mapping[str, float], engines: Mapping[str, Backend]) -> str:
    others = [f"{spent[name]:.1f} ms on {engines[name].name}" for name in spent if name != chosen]
    against = f" against {' and '.join(others)}" if others else ""
    return f"{engines[chosen].name} chosen: {spent[chosen]:.1f} ms{against}"


def _key(bundle: Bundle, device: str, threads: int | None, workers: int) -> dict[str, Any]:
    """All that the choice may depend on."""
    return {
        "graph": bundle.graph_digest(),
        "packages": installed_versions(_PACKAGES),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": own_cores(),
        "threads": threads or own_cores(),
        "device": device,
        "lanes": workers,
    }


def _path(key: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder("trials") / f"{digest[:32]}.json"


def _read(key: Mapping[str, Any]) -> str | None:
    """The engine chosen before; None for whatever is missing, damaged or of another make."""
    try:
        known = json.loads(read_small(_path(key)))
        if known["key"] == key and known["backend"] in (FIRST, "openvino", "openvino-bf16"):
            return str(known["backend"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def _write(key: Mapping[str, Any], choice: Choice) -> None:
    record = {
        "key": key,
        "backend": choice.backend,
        "milliseconds": dict(choice.milliseconds),
        "left_out": dict(choice.left_out),
    }
    try:
        replace_file(_path(key), (json.dumps(record, indent=2) + "\n").encode())
    except OSError as error:
        log.warning("the choice of the engine cannot be saved (%s): set XDG_CACHE_HOME to a folder of yours", error)
