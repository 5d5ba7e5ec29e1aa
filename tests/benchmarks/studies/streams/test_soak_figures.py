"""What a soak's samples show; that a real stream does so is tests/e2e/test_soak.py's."""

from __future__ import annotations

import numpy as np
import pytest

from kanoclip.benchmarks.studies.line_plot import HEIGHT, WIDTH
from kanoclip.benchmarks.studies.streams.process_samples import ProcessSample
from kanoclip.benchmarks.studies.streams.soak_figures import Moment, assess, plot


def moments(seconds=180, fps=20.0, leak_bytes=0, slower=0.0, more_threads=False):
    """A run that is sampled each second."""
    rng = np.random.default_rng(0)
    found, frames = [], 0.0
    for second in range(seconds):
        frames += fps * (1 - slower * second / seconds)
        used = 150 - 20 * np.exp(-second / 10) + frames * leak_bytes / 1e6 + abs(rng.normal(0, 0.05))
        process = ProcessSample(used + 80, used + 40, used, 20 + (more_threads and second > 100), 30, frames * 0.004)
        found.append(Moment(float(second), process, int(frames), 0, second * 5))
    return found


def test_a_stream_that_stays_as_it_is():
    found = assess(moments(), 20.0, 60.0)
    assert found["fps"] == pytest.approx(20, abs=0.1) and found["source_fps"] == 20.0
    assert abs(found["fps_change"]) < 0.01
    low, high = found["fps_change_interval"]
    assert low <= found["fps_change"] <= high
    assert not found["grows"] and found["dropped"] == 0
    assert found["threads"] == {"first": [20, 20], "last": [20, 20]}
    assert found["files"] == {"first": [30, 30], "last": [30, 30]}
    assert found["cpu_ms_a_frame"]["mean"] == pytest.approx(4, abs=0.1)
    assert found["shown"] == 119 * 5 and found["seconds"] == 119


@pytest.mark.parametrize("leak", [100_000, 1_000])
def test_a_leak_of_so_many_bytes_a_frame(leak):
    found = assess(moments(leak_bytes=leak), 20.0, 60.0)
    assert found["grows"]
    assert found["anonymous_mb"]["per_hour"] == pytest.approx(leak * 20 * 3600 / 1e6, rel=0.1)


def test_one_that_slows_down():
    found = assess(moments(slower=0.2), 20.0, 60.0)
    assert found["fps_change_interval"][1] < -0.05


def test_threads_that_come_and_stay():
    assert assess(moments(more_threads=True), 20.0, 60.0)["threads"] == {"first": [20, 20], "last": [21, 21]}


def test_the_limit_is_what_is_let_pass():
    leaking = moments(leak_bytes=1_000)  # 72 MB an hour
    assert assess(leaking, 20.0, 60.0, 60.0)["grows"] and not assess(leaking, 20.0, 60.0, 80.0)["grows"]


def test_the_curves_are_drawn():
    image = plot(moments(), 60.0)
    assert image.shape == (3 * HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    for number in range(3):  # each panel has a curve in colour
        panel = image[number * HEIGHT : (number + 1) * HEIGHT].astype(int)
        assert (np.ptp(panel, axis=2) > 60).sum() > 300
