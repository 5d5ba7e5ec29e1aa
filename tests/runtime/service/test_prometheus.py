"""What Prometheus is told, read back by its own parser."""

from __future__ import annotations

import sys
import threading
import urllib.request
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.http import serve_texts
from kanoclip.runtime.service.prometheus import MAX_SOURCES, StreamMetrics
from kanoclip.runtime.stream.control.figures import progress_of
from kanoclip.runtime.stream.control.progress import RunSummary, StageSummary
from kanoclip.runtime.stream.control.protocol import StreamState
from kanoclip.runtime.stream.counters import SCORE_BOUNDS, Tally
from kanoclip.runtime.types import Detection, Frame, Timings

STATE = StreamState("nano", "onnxruntime", ("camera 0",), ("nut",), "nut", 0.5, 0.4, False, True)
STAGES = (StageSummary("inference", 10, 30.0, 29.0, 40.0, 50.0), StageSummary("mqtt", 0, 0.0, 0.0, 0.0, 0.0))


class FakeControl:
    """A stream whose counts come from a real tally."""

    def __init__(self, *names):
        self.names = names or ("camera 0",)
        self.tally = Tally([SimpleNamespace(name=name, health=lambda: None) for name in self.names], recent=True)
        self.pushed_out = [0] * len(self.names)
        self.sink_dropped = {}

    def infer(self, score, source=0, alarm=False):
        detection = Detection(
            score, np.zeros((2, 2), np.float32), score >= 0.5, 0.5, (), "nut", Timings(1, 2, 3, 0.5, 0.5), alarm=alarm
        )
        self.tally.sources[source].deliver()
        self.tally.count(source, Frame(0, "x", 1.7e9, np.zeros((4, 4, 3), np.uint8), 1.0), detection, 0.5)

    def state(self):
        return replace(STATE, sources=self.names)

    def progress(self):
        return progress_of(self.tally, self.pushed_out, self.sink_dropped, paused=False)

    def summary(self):
        return RunSummary(0, 0, 0, 0, {}, 1.0, STAGES, False)


def read(metrics):
    """Samples by name and labels."""
    text = metrics.text().decode() if isinstance(metrics, StreamMetrics) else metrics
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_states_and_costs(monkeypatch):
    control = FakeControl()
    metrics = StreamMetrics(control)
    assert read(metrics)[("kanoclip_frames_total", ("source", "camera 0"))] == 0
    for score in (0.05, 0.051, 0.5, 1.0, float("nan")):
        control.infer(score, alarm=score == 1.0)
    control.pushed_out = [3]
    control.sink_dropped = {"mqtt": 7}
    control.tally.sources[0].error = "unplugged"
    found = read(metrics)
    of = ("source", "camera 0")
    assert found[("kanoclip_frames_total", of)] == found[("kanoclip_delivered_frames_total", of)] == 5
    assert found[("kanoclip_anomalous_frames_total", of)] == 2
    assert found[("kanoclip_dropped_frames_total", of)] == 3
    assert found[("kanoclip_source_up", of)] == found[("kanoclip_alarm", of)] == 0
    assert found[("kanoclip_last_capture_timestamp_seconds", of)] == 1.7e9
    assert found[("kanoclip_sink_dropped_results_total", ("sink", "mqtt"))] == 7
    assert found[("kanoclip_score_bucket", ("le", "0.05"), of)] == 1
    assert found[("kanoclip_score_bucket", ("le", "0.1"), of)] == 2
    assert found[("kanoclip_score_bucket", ("le", "1.0"), of)] == found[("kanoclip_score_count", of)] == 4
    assert found[("kanoclip_score_sum", of)] == pytest.approx(1.601)
    assert found[("kanoclip_stage_seconds", ("quantile", "0.95"), ("stage", "inference"))] == 0.04
    assert found[("kanoclip_stage_seconds_sum", ("stage", "inference"))] == pytest.approx(0.3)
    assert not any(("stage", "mqtt") in key for key in found), "nothing was measured there"
    assert found[("kanoclip_threshold",)] == 0.5 and found[("kanoclip_paused",)] == 0
    assert found[("kanoclip_gpu_refused",)] == 0
    monkeypatch.setattr(FakeControl, "state", lambda self: replace(STATE, fallback="libcublasLt.so.13 is missing"))
    assert read(metrics)[("kanoclip_gpu_refused",)] == 1
    info = ("kanoclip_info", ("backend", "onnxruntime"), ("bundle", "nano"), ("class", "nut"), ("trained", "true"))
    assert found[info] == 1
    if sys.platform == "linux":
        assert found[("process_resident_memory_bytes",)] > 1e6


def test_a_counter_never_falls():
    control = FakeControl()
    metrics = StreamMetrics(control)
    control.pushed_out = [10]
    read(metrics)
    control.pushed_out = [9]  # read in the middle of a change
    assert read(metrics)[("kanoclip_dropped_frames_total", ("source", "camera 0"))] == 10


def test_names_are_bounded_in_number_and_length_and_escaped():
    names = ['a "quoted\\\n', "x" * 5000, *map(str, range(MAX_SOURCES + 3))]
    control = FakeControl(*names)
    for source in range(len(names)):
        control.infer(0.7, source)
    found = read(StreamMetrics(control))
    frames = {dict(key[1:])["source"]: value for key, value in found.items() if key[0] == "kanoclip_frames_total"}
    assert len(frames) == MAX_SOURCES + 1 and frames["others"] == 5
    assert frames[names[0]] == 1 and max(map(len, frames)) == 200


@given(st.lists(st.floats(-0.1, 1.1), max_size=50))
def test_the_histogram_is_that_of_the_scores(scores):
    control = FakeControl()
    for score in scores:
        control.infer(score)
    (source,) = control.progress().sources
    cumulative = np.cumsum(source.score_counts)
    assert cumulative[-1] == len(scores)
    for bound, count in zip(SCORE_BOUNDS, cumulative, strict=False):
        assert count == sum(score <= bound for score in scores)


def test_it_is_served_and_read_by_many_at_a_time():
    control = FakeControl()
    metrics = StreamMetrics(control)
    with serve_texts({"/metrics": metrics.answer}, ("127.0.0.1", 0), "metrics") as (host, port):
        answers = []

        def scrape():
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
                answers.append((answer.headers["Content-Type"], answer.read().decode()))

        threads = [threading.Thread(target=scrape) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(500):
            control.infer(0.6)
        for thread in threads:
            thread.join()
        assert len(answers) == 8
        for content_type, text in answers:
            assert content_type.startswith("text/plain; version=0.0.4")
            assert ("kanoclip_paused",) in read(text)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{host}:{port}/", timeout=10)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SettingsError, match=r"pip install 'kanoclip-edge\[metrics\]'"):
        StreamMetrics(FakeControl())
