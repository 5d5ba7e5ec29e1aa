"""Finds the engine of a bundle for the GPU that is here: built before, brought along, or built now and scored."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.schema import EXACT
from kanoclip.runtime.engines.base import Report
from kanoclip.runtime.engines.reference import Comparison
from kanoclip.runtime.engines.tensorrt.building.build import BuildOptions, Serialized, build_engine, count_attention
from kanoclip.runtime.engines.tensorrt.building.cache import BuiltEngine, EngineCache, mapped
from kanoclip.runtime.engines.tensorrt.building.fallback import find_fallback
from kanoclip.runtime.engines.tensorrt.building.key import EngineKey, engine_key, runs_on
from kanoclip.runtime.engines.tensorrt.device import DeviceInfo
from kanoclip.runtime.engines.tensorrt.flavour import Flavour
from kanoclip.runtime.errors import BackendError
from kanoclip.runtime.system.paths import cache_path

Compare = Callable[[Serialized], Comparison]
"""Compares an engine's answers on this GPU with the reference's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Provided:
    """An engine to run.

    Attributes:
        serialized: Its bytes.
        stripped: Its weights come from the graph.
        origin: Where it is from, in words.
    """

    serialized: Serialized
    stripped: bool
    origin: str


def provide_engine(
    bundle: Bundle,
    flavour: Flavour,
    gpu: DeviceInfo,
    make_compare: Callable[[], Compare | None],
    report: Report,
    *,
    rebuild: bool = False,
) -> Provided:
    """Finds or builds an engine.

    What was built on this machine comes first: it is there because the bundle's own did not fit or was wrong here. An
    engine of another version or for another GPU is never tried.

    Args:
        bundle: Whose.
        flavour: Which TensorRT.
        gpu: For what.
        make_compare: Called when an engine is built: what compares it with the reference, None where nothing can be.
        report: Called with the progress of a build, which takes from seconds to many minutes.
        rebuild: Pass over what was built before and what the bundle brings along.

    Raises:
        BackendError: It cannot be built, or no choice of precision gives the bundle's answers on this GPU.
    """
    key = engine_key(bundle, flavour, gpu)
    cache = EngineCache(_folder())
    if rebuild:
        cache.discard(key)
    elif (found := cache.get(key)) is not None:
        return Provided(found.serialized, False, f"built here before{_float32_note(found)}")
    if not rebuild and (brought := _brought(bundle, flavour, gpu)) is not None:
        return brought
    built, warning = cache.get_or_build(
        key,
        lambda: _build_and_compare(bundle, flavour, key, make_compare, report),
        lambda: report("waiting for another process that builds the same engine", 0.0),
    )
    if warning is not None:
        log.warning("%s", warning)
    return Provided(built.serialized, False, f"built now{_float32_note(built)}")


def kernels_file(bundle: Bundle, flavour: Flavour, gpu: DeviceInfo) -> Path | None:
    """Where TensorRT-RTX's compiled kernels are saved: they belong to the GPU and driver too. None for TensorRT."""
    if not flavour.is_rtx:
        return None
    words = "-".join((flavour.version, gpu.name, gpu.driver, bundle.graph_digest()[:20]))
    return _folder() / (re.sub(r"[^\w.-]", "_", words) + ".jit")


def timing_file() -> Path:
    """Where full TensorRT keeps what it has measured of kernels; it checks itself that GPU and version are the same."""
    return _folder() / "timing.cache"


def _folder() -> Path:
    try:
        return cache_path("engines")
    except OSError:  # a user without a home: saved for as long as the machine is up
        return Path(tempfile.gettempdir()) / f"kanoclip-engines-{os.getuid()}"


def _brought(bundle: Bundle, flavour: Flavour, gpu: DeviceInfo) -> Provided | None:
    for engine in bundle.manifest.engines:
        if runs_on(engine, flavour, gpu):
            return Provided(mapped(bundle.file(engine.file)), engine.stripped, f"the bundle's {engine.file}")
    return None


def _build_and_compare(
    bundle: Bundle, flavour: Flavour, key: EngineKey, make_compare: Callable[[], Compare | None], report: Report
) -> BuiltEngine:
    title = f"building the {flavour.title} engine for {key.device or 'SM ' + key.compute_capability}"

    def build(fp32_attention: frozenset[int]) -> Serialized:
        options = BuildOptions(
            max_batch=key.max_batch,
            memory_rows=None if bundle.manifest.memory is None else bundle.manifest.memory.rows,
            fp32_attention=fp32_attention,
            tf32=bundle.manifest.precision != EXACT,
            timing_cache=None if flavour.is_rtx else timing_file(),
        )
        note = f", {len(fp32_attention)} attention blocks in float32" if fp32_attention else ""
        return build_engine(flavour, bundle.model_path, options, partial(report, title + note))

    serialized = build(frozenset())
    infer = make_compare()
    if infer is None:
        log.warning("the engine's answers were not compared: pip install onnxruntime, then kanoclip-doctor does it")
        return BuiltEngine(serialized, (), compared=False)
    found = infer(serialized)
    if found.agrees:
        return BuiltEngine(serialized, (), compared=True)
    blocks = count_attention(flavour, bundle.model_path)
    if not blocks:
        raise BackendError(
            f"{flavour.title} gives wrong answers on this GPU ({found.drifts()}), and the graph has no attention in "
            "half precision that float32 could mend: try another TensorRT or driver, or choose --backend onnxruntime"
        )
    log.warning("the engine drifts on this GPU, %s: looking for the attention blocks at fault", found.drifts())
    last: dict[frozenset[int], Serialized] = {}

    def passes(chosen: frozenset[int]) -> bool:
        if not chosen:
            return False  # that is the engine above
        candidate = build(chosen)
        if good := infer(candidate).agrees:
            last.clear()  # one at a time: they are large
            last[chosen] = candidate
        return good

    chosen = find_fallback(blocks, passes)
    if chosen is None:
        raise BackendError(
            f"{flavour.title} gives wrong answers on this GPU ({found.drifts()}) even with all attention in float32: "
            "export the bundle with --fp32, or choose --backend onnxruntime"
        )
    log.warning("right answers with attention blocks %s in float32", ", ".join(map(str, sorted(chosen))))
    return BuiltEngine(last[chosen], tuple(sorted(chosen)), compared=True)


def _float32_note(engine: BuiltEngine) -> str:
    blocks = engine.fp32_attention
    return f", attention blocks {', '.join(map(str, blocks))} in float32" if blocks else ""
