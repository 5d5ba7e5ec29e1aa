"""A reload while a stream runs: whatever the file holds ends no run, and a good one changes all at once."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time

import pytest
from grey_stream import Collect, Grey

from kanoclip.runtime.detect.alarm import EVERY_FRAME
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.detect.settings.saved_thresholds import Saved
from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.stream.config import PipelineConfig
from kanoclip.runtime.stream.control.stream_control import StreamControl
from kanoclip.runtime.stream.pipeline import Pipeline
from kanoclip.runtime.system.queues import Policy

GOOD = '[decision]\nthreshold = 0.5\nmin_area = 4\nroi = "roi.json"\nalarm = "3/5"\n\n[class.nut]\nthreshold = 0.6\n'
CORNERS = [[0, 0], [60, 0], [60, 40], [0, 40]]


@pytest.fixture
def line(tmp_path, make_toy_bundle):
    """A stream that runs by line.toml, its control and what came of its frames; it must still run in the end."""
    bundle = make_toy_bundle(tmp_path / "own.kanoclip", classes=("nut", "bolt"))
    file = tmp_path / "line.toml"
    file.write_text(GOOD)
    (tmp_path / "roi.json").write_text(json.dumps({"units": "pixels", "size": [60, 40], "keep": [CORNERS]}))
    settings = read_settings(file)
    detector = Detector.load(bundle, backend="onnxruntime", settings=settings, workers=2)
    sink = Collect()
    alarm = settings.decision("nut").alarm or EVERY_FRAME
    config = PipelineConfig(Policy.DROP_OLDEST, class_name="nut", workers=2, alarm=alarm)
    pipeline = Pipeline(Grey(), detector, [sink], config)
    control = StreamControl(pipeline.live, detector, "nut", lambda bundle: Saved(bundle, read_settings(file), file))
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    try:
        wait(sink, 2)
        yield file, control, sink
        wait(sink, len(sink.seen) + 2)
        assert thread.is_alive()
    finally:
        pipeline.stop()
        thread.join()
        detector.close()


def wait(sink, count):
    while len(sink.seen) < count:
        time.sleep(0.002)


BAD = [
    b'[decision]\nroi = "~nosuchuser/x.json"\n',
    b'[decision]\nroi = "."\n',
    b'[decision]\nroi = "/dev/zero"\n',
    b'[decision]\nroi = "pipe"\n',
    b'[decision]\nroi = "huge.json"\n',
    b'[decision]\nroi = "huge_size.json"\n',
    b'[decision]\nroi = "deep.json"\n',
    b'[decision]\nroi = "other_size.json"\n',
    b'[decision]\nroi = "a\\u0000b"\n',
    b'[decision]\nroi = "' + b"x" * 5000 + b'"\n',
    b"[decision]\nmin_area = " + b"9" * 400 + b"\n",
    b"[decision]\nmin_area = 0x" + b"f" * 9000 + b"\n",
    b"[decision]\nthreshold = " + b"9" * 400 + b"\n",
    b"[decision]\nthreshold = 0x" + b"f" * 9000 + b"\n",
    b"[decision]\nthreshold = nan\n",
    b'[decision]\nalarm = "99999/99999"\n',
    b"[decision]\nalarm = " + b"[" * 5000 + b"]" * 5000 + b"\n",
    b"a = " + b"[" * 100_000 + b"\n",
    b"[" * 100_000 + b"\n",
    b"a." * 100_000 + b"a = 1\nb = 2\n",
    b'[decision]\nunknown = "' + b"a.b" * 1000 + b'"\n',
    b"[class.nonesuch]\nthreshold = 0.5\n",
    b"\x00\xff\xfe" * 500,
    os.urandom(2000),
    b"x" * (2 << 20),
    None,
]


def test_no_file_ends_a_run(line, tmp_path, caplog):
    file, control, _ = line
    huge = "9" * 400
    (tmp_path / "huge.json").write_text(f'{{"units": "relative", "keep": [[[0, 0], [{huge}, 0], [1, 1]]]}}')
    (tmp_path / "huge_size.json").write_text(
        f'{{"units": "pixels", "size": [{huge}, 1], "keep": [[[0, 0], [1, 0], [1, 1]]]}}'
    )
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "other_size.json").write_text(json.dumps({"units": "pixels", "size": [40, 60], "keep": [CORNERS]}))
    os.mkfifo(tmp_path / "pipe")
    threshold = control.state().threshold
    for content in BAD:
        if content is None:
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert not control.reload(), content
        (record,) = caplog.records
        assert record.getMessage().endswith("the settings before stay in use")
        assert "unexpected" not in record.getMessage(), record.getMessage()
        assert control.state().threshold == threshold
    file.rmdir()
    file.write_text(GOOD.replace("0.6", "0.7"))
    assert control.reload()
    assert control.state().threshold == 0.7


def test_mutated_files_end_no_run(line, tmp_path):
    """Bytes changed, taken out, doubled and put in, in the settings and in the polygons."""
    file, control, sink = line
    random_ = random.Random(24)
    pieces = [b"[", b"]", b'"', b"\\u0000", b"=", b"\n", b"9" * 400, b"-", b"inf", b"nan", b"~", b".", b"{", b"\xff"]
    polygons = (tmp_path / "roi.json").read_bytes()
    for n in range(300):
        for path, good in ((file, GOOD.encode()), (tmp_path / "roi.json", polygons)):
            content = bytearray(good)
            for _ in range(random_.randrange(4)):
                at, width = random_.randrange(len(content) + 1), random_.choice((0, 1, 4))
                content[at : at + width] = random_.choice([*pieces, bytes([random_.randrange(256)])])
            path.write_bytes(content)
        control.reload()
        if n % 50 == 0:
            wait(sink, len(sink.seen) + 1)


def test_thresholds_and_alarm_change_together(line):
    """One pair raises no alarm for want of an anomaly, the other for want of enough: any mixture of both raises one."""
    file, control, sink = line
    pairs = ['[decision]\nthreshold = 0.9\nalarm = "1/1"\n', '[decision]\nthreshold = 0.1\nalarm = "10000/10000"\n']
    file.write_text(pairs[0])
    assert control.reload()
    begun = len(sink.seen)
    for n in range(200):
        file.write_text(pairs[n % 2])
        assert control.reload()
        if n % 8 < 2:
            wait(sink, len(sink.seen) + 1)
    wait(sink, len(sink.seen) + 8)
    after = [detection for _, detection in sink.seen[begun + 8 :]]
    assert {one.threshold for one in after} == {0.1, 0.9}
    assert not any(one.alarm for one in after)
