"""`kanoclip-run` on sources that have no end: the installed command with a toy bundle, stopped by a signal."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from .helpers import environment

SERVER = Path(__file__).parents[1] / "support" / "camera_server.py"
RUN = (str(Path(sys.executable).parent / "kanoclip-run"), "--backend", "onnxruntime", "--no-window", "--quiet")
pytestmark = pytest.mark.timeout(180)


class Run:
    """The command, its JSON lines, and how it ended."""

    def __init__(self, folder, *arguments):
        self.lines = folder / "frames.jsonl"
        self.process = subprocess.Popen(
            [*RUN, *arguments, "--jsonl", str(self.lines)],
            env=environment(),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rows(self):
        if not self.lines.exists():
            return []
        whole, _, _ = self.lines.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def wait_for(self, count, timeout=60):
        deadline = time.monotonic() + timeout
        while len(self.rows()) < count:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline, f"{len(self.rows())} rows"
            time.sleep(0.05)

    def stop(self, number=signal.SIGTERM):
        started = time.monotonic()
        self.process.send_signal(number)
        _, self.said = self.process.communicate(timeout=30)
        self.took = time.monotonic() - started
        return self.process.returncode


@contextmanager
def running(folder, *arguments):
    run = Run(folder, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def test_the_test_pattern_needs_no_camera(toy_bundle, tmp_path):
    spec = "test://?width=128&height=72&fps=50&defect=0.5"
    with running(tmp_path, "--bundle", str(toy_bundle), "--source", spec, "--max-frames", "10") as run:
        assert run.process.wait(60) == 0
    assert len(run.rows()) == 10 and {row["source"] for row in run.rows()} == {spec}


def test_a_watched_folder_is_scored_until_sigterm(toy_bundle, tmp_path):
    folder, done = tmp_path / "in", tmp_path / "done"
    folder.mkdir()
    with running(tmp_path, "--bundle", str(toy_bundle), "--source", f"watch://{folder}?done={done}") as run:
        for number in range(5):
            assert cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 20, 3), 40 * number, np.uint8))
        run.wait_for(5)
        assert run.stop() == 0 and run.took < 5 and run.said == ""
    assert sorted(Path(row["source"]).name for row in run.rows()) == [f"{number}.png" for number in range(5)]
    assert len(list(done.iterdir())) == 5


def test_a_killed_camera_costs_a_line_and_the_run_goes_on(toy_bundle, tmp_path):
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def start():
        camera = subprocess.Popen([sys.executable, str(SERVER), "mjpeg", str(port)], stdout=subprocess.PIPE)
        assert camera.stdout.readline() == b"ready\n"
        return camera

    camera = start()
    try:
        source = f"http://ada:s3cr3t@127.0.0.1:{port}/video"
        with running(tmp_path, "--bundle", str(toy_bundle), "--source", source) as run:
            run.wait_for(10)
            camera.kill()
            camera.wait()
            time.sleep(0.5)
            before = len(run.rows())
            camera = start()
            run.wait_for(before + 10)
            assert run.stop(signal.SIGINT) == 0 and run.took < 8
    finally:
        camera.kill()
        camera.wait()
    frames = [row["frame"] for row in run.rows()]
    assert frames == sorted(set(frames))
    lost, *rest = run.said.splitlines()
    assert lost.startswith(f"warning: http://***@127.0.0.1:{port}/video: the stream stopped after ")
    assert lost.endswith("trying again until it is back")
    assert "s3cr3t" not in run.said + run.lines.read_text()
    assert rest == []  # that it is back is a note, and --quiet keeps notes
