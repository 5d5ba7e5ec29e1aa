"""What a run asks of its sources and of its engine before it begins."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from kanoclip.runtime.cli import run
from kanoclip.runtime.cli.run import command
from kanoclip.runtime.cli.run_options.sinks import outputs
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.errors import SourceRefusedError
from kanoclip.runtime.sources.gstreamer import gstreamer

HALVED = "flip-method=0 interpolation-method=1 ! video/x-raw,format=BGRx,width=160,height=90 !"
WHOLE = "flip-method=0 ! video/x-raw,format=BGRx !"
CAMERA = "csi://0?width=320&height=180"


@pytest.fixture
def pipeline(monkeypatch, toy_bundle, tmp_path):
    """What a run asks of GStreamer; it ends there, before the outputs are opened."""

    def asked(*arguments, display=False, camera=CAMERA):
        pipelines = []

        def launch(name, words):
            pipelines.append(" ".join(words))
            raise SourceRefusedError("enough")

        monkeypatch.setattr(gstreamer, "GstLaunch", launch)
        monkeypatch.setattr(outputs, "has_display", lambda: display)
        monkeypatch.chdir(tmp_path)
        given = ["--bundle", str(toy_bundle), "--backend", "onnxruntime", "--warmup", "0", "--camera", camera]
        done = CliRunner().invoke(command, [*given, *arguments])
        assert str(done.exception) == "enough", (done.output, done.exception)
        return pipelines[0]

    return asked


@pytest.mark.parametrize(
    ("arguments", "display", "looks"),
    [
        ((), False, False),
        (("--jsonl", "x.jsonl", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0"), False, False),
        (("--webhook", "http://127.0.0.1:9/"), False, False),
        (("--webhook", "http://127.0.0.1:9/", "--webhook-picture", "annotated"), False, True),
        (("--output", "annotated/"), False, True),
        (("--output", "annotated.mp4"), False, True),
        (("--snapshots", "anomalies/"), False, True),
        # Nobody has opened the page yet, but somebody may.
        (("--serve", "127.0.0.1:0"), False, True),
        # A live source has a window where there is a display.
        ((), True, True),
        (("--no-window",), True, False),
        (("--window",), False, True),
        (("--jsonl", "x.jsonl", "--snapshots", "anomalies/"), False, True),
    ],
)
def test_a_csi_camera_halves_its_frames_where_nobody_looks_at_whole_ones(pipeline, arguments, display, looks):
    found = pipeline(*arguments, display=display)
    assert (WHOLE in found, HALVED in found) == (looks, not looks)


def test_whole_frames_can_be_had_where_nobody_looks(pipeline):
    assert WHOLE in pipeline(camera=f"{CAMERA}&whole=1")


@pytest.mark.parametrize(
    ("sources", "in_flight"),
    [
        (["--source", "test://"], 1),  # the newest frame soonest, and none begun early
        (["--source", "test://", "--source", "test://?fps=5"], 2),
        (["--source", "parts"], 2),
        (["--source", "parts", "--policy", "drop-oldest"], 1),
    ],
)
def test_a_lone_live_view_has_one_frame_in_flight(monkeypatch, toy_bundle, tmp_path, sources, in_flight):
    (tmp_path / "parts").mkdir()
    cv2.imwrite(str(tmp_path / "parts" / "0.png"), np.zeros((32, 32, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Detector, "in_flight", 2)
    configs = []

    def pipeline(given, detector, sinks, config, **_):
        configs.append(config)
        raise SourceRefusedError("enough")

    monkeypatch.setattr(run, "Pipeline", pipeline)
    arguments = ["--bundle", str(toy_bundle), "--backend", "onnxruntime", "--no-window", *sources]
    done = CliRunner().invoke(command, arguments)
    assert str(done.exception) == "enough", (done.output, done.exception)
    assert [config.in_flight for config in configs] == [in_flight]
