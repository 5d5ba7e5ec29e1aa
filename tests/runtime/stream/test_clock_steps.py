"""A day of a clock that is set each hour, by seconds to a day, back and forth: no frame, line or snapshot is lost."""

from __future__ import annotations

import json
import random
import time
from datetime import datetime
from itertools import pairwise

import pytest

from kanoclip.runtime import Detector, Stream
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.sinks import JsonLinesSink
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink
from kanoclip.runtime.sources import capture

HOURS, EACH = 24, 3


class Noting(SnapshotSink):
    """Notes which frames it was given: a live stream's sinks may lose some."""

    def __init__(self, config):
        super().__init__(config, untrained=False)
        self.given = []

    def write(self, frame, detection):
        super().write(frame, detection)
        self.given.append(frame.index)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_day_of_steps(toy_bundle, tmp_path, monkeypatch, seed):
    random_step = random.Random(seed)
    steps = [random_step.choice((-1, 1)) * 10 ** random_step.uniform(0, 4.9) for _ in range(HOURS)]
    real, taken = time.time, 0

    def stepped() -> float:
        """An hour has passed after every EACH frames, and the clock has been set by then."""
        nonlocal taken
        hour = min(taken // EACH, HOURS - 1)
        taken += 1
        return real() + hour * 3600 + sum(steps[: hour + 1])

    monkeypatch.setattr(capture.time, "time", stepped)
    lines, ring = tmp_path / "frames.jsonl", tmp_path / "ring"
    most = 10
    with Detector.load(toy_bundle, backend="onnxruntime", settings=Settings(flags=Decision(threshold=0.0))) as detector:
        kept = Noting(SnapshotConfig(ring, min_interval_s=0.0, max_count=most))
        source = "test://?width=64&height=64&fps=100"
        with Stream(source, detector, [JsonLinesSink(str(lines)), kept], max_frames=HOURS * EACH) as stream:
            got = [frame.index for frame, _ in stream]
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    summary = stream.summary
    assert summary.frames == HOURS * EACH and len(records) > HOURS
    numbers = [record["frame"] for record in records]
    assert numbers == sorted(set(numbers)) and got == sorted(set(got))
    moments = [datetime.fromisoformat(record["time"]).timestamp() for record in records]
    assert any(later < earlier for earlier, later in pairwise(moments)), "it was set back"
    # Durations come from another clock: none is negative or a day long.
    assert all(0 <= value < 60_000 for record in records for value in record["timings_ms"].values())
    assert 0 < summary.wall_s < 60 and all(0 <= stage.mean < 60_000 for stage in summary.stages if stage.count)
    snapshots = sorted(int(path.stem.rpartition("_")[2]) for path in ring.glob("*.json"))
    assert snapshots == kept.given[-most:], "the newest by their order, whatever the clock said"
