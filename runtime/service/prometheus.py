"""Prometheus' metrics of a running stream: read when it scrapes, at no cost a frame."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.http import Answer
from kanoclip.runtime.stream.control.progress import Progress, SourceProgress, StageSummary
from kanoclip.runtime.stream.control.protocol import Control
from kanoclip.runtime.stream.counters import SCORE_BOUNDS

if TYPE_CHECKING:
    from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `StreamMetrics.text`."""
MAX_SOURCES = 64
"""Sources with series of their own; what others count is added up under `others`."""
_LONGEST = 200

_COUNTERS = (
    ("frames", "Frames scored.", "frames"),
    ("anomalous_frames", "Frames scored at or above the threshold.", "anomalous"),
    ("unreadable_frames", "Images that could not be read.", "skipped"),
    ("dropped_frames", "Frames that the detector was too slow for.", "dropped"),
    ("delivered_frames", "Frames that came from the source, readable or not.", "delivered"),
    ("source_reconnects", "How often a lost source came back.", "reconnects"),
)


class StreamMetrics:
    """A running stream in Prometheus' text format, with the process's memory, processor time and open files.

    Args:
        control: The stream.

    Raises:
        SettingsError: prometheus_client is not installed.
    """

    def __init__(self, control: Control) -> None:
        require_prometheus()
        from prometheus_client import CollectorRegistry, ProcessCollector

        self._control = control
        self._highest: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """All of it now; may be called from any thread."""
        from prometheus_client import generate_latest

        with self._lock:
            return generate_latest(self._registry)

    def answer(self) -> Answer:
        """The same for `service.server.serve_texts`."""
        return Answer(200, CONTENT_TYPE, self.text())

    def describe(self) -> list[Metric]:
        """Names are not asked for beforehand: the stream may not run yet. Part of prometheus_client's protocol."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The stream's metrics. Part of prometheus_client's protocol."""
        state, progress = self._control.state(), self._control.progress()
        yield _info(
            bundle=state.bundle,
            backend=state.backend,
            **{"class": state.class_name},
            trained=str(state.trained).lower(),
        )
        yield _gauge("threshold", "Score from which a frame is anomalous.", [({}, state.threshold)])
        yield _gauge("pixel_threshold", "Map value from which a pixel counts.", [({}, state.pixel_threshold)])
        yield _gauge(
            "gpu_refused", "Whether the CPU scores because the GPU did not start.", [({}, bool(state.fallback))]
        )
        yield _gauge("paused", "Whether frames are let go by unscored.", [({}, state.paused)])
        yield from self._of_sources(progress)
        dropped = [({"sink": name}, count) for name, count in progress.sink_dropped.items()]
        yield self._counter("sink_dropped_results", "Results that an output was too slow for or lost.", dropped)
        yield _gauge(
            "latency_seconds",
            "From capture to verdict, over the last frames.",
            [
                ({"quantile": quantile}, milliseconds / 1e3)
                for quantile, milliseconds in (
                    ("0.5", progress.latency_p50),
                    ("0.95", progress.latency_p95),
                    ("0.99", progress.latency_p99),
                )
            ],
        )
        yield _stages(self._control.summary().stages)

    def _of_sources(self, progress: Progress) -> Iterator[Metric]:
        named, others = progress.sources[:MAX_SOURCES], progress.sources[MAX_SOURCES:]
        labels = [{"source": source.name[:_LONGEST]} for source in named]
        for name, text, field in _COUNTERS:
            counts = [(label, getattr(source, field)) for label, source in zip(labels, named, strict=True)]
            if others:
                counts.append(({"source": "others"}, sum(getattr(source, field) for source in others)))
            yield self._counter(name, text, counts)
        gauges: tuple[tuple[str, str, list[float | None]], ...] = (
            ("source_up", "Whether the source delivers, or is expected to.", [float(_is_up(s)) for s in named]),
            ("alarm", "Whether the alarm is up.", [None if s.alarm is None else float(s.alarm) for s in named]),
            ("frames_per_second", "Frames scored a second, over the last ones.", [s.fps for s in named]),
            ("last_score", "Score of the last frame scored.", [s.last_score for s in named]),
            ("frame_age_seconds", "Since the source delivered its last frame.", [s.last_frame_age_s for s in named]),
            ("last_capture_timestamp_seconds", "Unix time of the last scored frame.", [s.last_at for s in named]),
        )
        for name, text, values in gauges:
            known = [(label, value) for label, value in zip(labels, values, strict=True) if value is not None]
            yield _gauge(name, text, known)
        yield _scores(labels, named)

    def _counter(self, name: str, text: str, samples: Sequence[tuple[dict[str, str], float]]) -> Metric:
        """A counter that never falls, although its parts are read one after the other: a fall means a restart."""
        from prometheus_client import Metric

        metric = Metric(f"kanoclip_{name}", text, "counter")
        for labels, value in samples:
            key = (name, *labels.values())
            self._highest[key] = max(self._highest.get(key, 0.0), value)
            metric.add_sample(f"kanoclip_{name}_total", labels, self._highest[key])
        return metric


def require_prometheus() -> None:
    """Refuses to go on without prometheus_client.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise SettingsError("--metrics needs prometheus_client: pip install 'kanoclip-edge[metrics]'") from None


def _is_up(source: SourceProgress) -> bool:
    return source.error is None and source.away is None


def _info(**labels: str) -> Metric:
    return _gauge("info", "What scores, and by what.", [({k: v[:_LONGEST] for k, v in labels.items()}, 1)])


def _gauge(name: str, text: str, samples: list[tuple[dict[str, str], Any]]) -> Metric:
    from prometheus_client import Metric

    metric = Metric(f"kanoclip_{name}", text, "gauge")
    for labels, value in samples:
        metric.add_sample(f"kanoclip_{name}", labels, float(value))
    return metric


def _scores(labels: list[dict[str, str]], sources: tuple[SourceProgress, ...]) -> Metric:
    from prometheus_client import Metric

    metric = Metric("kanoclip_score", "Scores of the frames scored.", "histogram")
    for label, source in zip(labels, sources, strict=True):
        total = 0
        for bound, count in zip((*map(str, SCORE_BOUNDS), "+Inf"), source.score_counts, strict=False):
            total += count
            metric.add_sample("kanoclip_score_bucket", label | {"le": bound}, total)
        if source.score_counts:
            metric.add_sample("kanoclip_score_count", label, total)
            metric.add_sample("kanoclip_score_sum", label, source.score_sum)
    return metric


def _stages(stages: tuple[StageSummary, ...]) -> Metric:
    from prometheus_client import Metric

    metric = Metric("kanoclip_stage_seconds", "Time a frame takes in each stage and output.", "summary")
    for stage in stages:
        if stage.count:
            for quantile, milliseconds in (("0.5", stage.p50), ("0.95", stage.p95), ("0.99", stage.p99)):
                labels = {"stage": stage.name, "quantile": quantile}
                metric.add_sample("kanoclip_stage_seconds", labels, milliseconds / 1e3)
            metric.add_sample("kanoclip_stage_seconds_count", {"stage": stage.name}, stage.count)
            metric.add_sample("kanoclip_stage_seconds_sum", {"stage": stage.name}, stage.mean * stage.count / 1e3)
    return metric
