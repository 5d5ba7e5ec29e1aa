"""`kanoclip-run` on what has no end: several sources, settings read again, outputs that fail, thresholds kept."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.detect.settings.saved_thresholds import own_settings

from .helpers import count_frames, environment, free_port, in_process

BIN = Path(sys.executable).parent
PATTERN = "test://?width=96&height=64&fps=50"

pytestmark = pytest.mark.timeout(180)


def arguments(bundle, *given):
    named = [] if bundle is None else ["--bundle", str(bundle)]
    return [str(BIN / "kanoclip-run"), *named, "--backend", "onnxruntime", *map(str, given)]


class Running:
    """A run in the background, without a terminal, as a service has none."""

    def __init__(self, bundle, *given, **more):
        self.process = subprocess.Popen(
            arguments(bundle, *given),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more), start_new_session=True,
        )  # fmt: skip

    def until(self, wanted, seconds=40):
        deadline = time.monotonic() + seconds
        while not wanted():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.process.kill()
                pytest.fail(str(self.process.communicate()))
            time.sleep(0.02)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stdout, stderr

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def run(bundle, *given, **more):
    return subprocess.run(
        arguments(bundle, *given), capture_output=True, text=True, env=environment(**more), timeout=90
    )


def lines_of(path):
    """What has been written so far; the last line may be on its way."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def by_source(path, key="source"):
    found = defaultdict(list)
    for line in lines_of(path):
        found[line[key]].append(line)
    return found


def write_video(path, count, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    assert writer.isOpened()
    for _ in range(count):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    return path


def test_sighup_reads_the_settings_again_and_a_bad_file_is_one_warning(toy_bundle, tmp_path):
    config, jsonl = tmp_path / "line3.toml", tmp_path / "x.jsonl"
    config.write_text("[decision]\nthreshold = 0.11\n")
    with Running(toy_bundle, "--source", PATTERN, "--config", config, "--jsonl", jsonl) as stream:

        def judged_by(threshold):
            stream.until(lambda: jsonl.exists() and [r["threshold"] for r in lines_of(jsonl)[-1:]] == [threshold])

        judged_by(0.11)
        config.write_text('[decision]\nthreshold = 0.22\nalarm = "2/3"\n')
        stream.process.send_signal(signal.SIGHUP)
        judged_by(0.22)
        config.write_text("[decision]\nthreshold = 22\n")
        stream.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        count = len(lines_of(jsonl))
        stream.until(lambda: len(lines_of(jsonl)) > count + 10)
        judged_by(0.22)
        code, stdout, stderr = stream.end()
    assert code == 0, stderr
    warnings = [line for line in stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1 and "line3.toml, line 2: threshold" in warnings[0]
    assert warnings[0].endswith("the settings before stay in use")
    assert "settings read again" in stderr and "stopped early" in stdout
    frames = [line["frame"] for line in lines_of(jsonl)]
    assert frames == sorted(set(frames)), "no frame twice, none out of turn"


def test_sighup_takes_up_a_memory_that_was_learned_meanwhile(make_toy_bundle, tmp_path):
    bundle, good, jsonl = tmp_path / "toy.kanoclip", tmp_path / "good", tmp_path / "x.jsonl"
    make_toy_bundle(bundle, grid=(4, 4), memory_rows=32)
    good.mkdir()
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)
        assert cv2.imwrite(str(good / f"{seed}.png"), noise)
    with Running(bundle, "--source", PATTERN, "--jsonl", jsonl) as stream:
        stream.until(lambda: jsonl.exists() and [r["threshold"] for r in lines_of(jsonl)[-1:]] == [0.5])
        done = in_process("kanoclip-learn", bundle, "--backend", "onnxruntime", "--source", good, "--json")
        assert done.returncode == 0, done.stderr
        learned = Bundle.open(bundle).manifest
        assert learned.references and learned.thresholds.image != 0.5
        stream.process.send_signal(signal.SIGHUP)
        stream.until(lambda: lines_of(jsonl)[-1]["threshold"] == pytest.approx(learned.thresholds.image))
        code, _, stderr = stream.end()
    assert code == 0, stderr
    assert "object is scored by a memory of 4 references now" in stderr
    frames = [line["frame"] for line in lines_of(jsonl)]
    assert frames == sorted(set(frames)), "no frame twice, none out of turn"


def test_sighup_before_the_stream_runs_does_not_end_it(toy_bundle, tmp_path):
    jsonl = tmp_path / "x.jsonl"
    with Running(toy_bundle, "--source", PATTERN, "--jsonl", jsonl) as stream:
        stream.until(lambda: _catches(stream.process.pid, signal.SIGHUP))
        stream.process.send_signal(signal.SIGHUP)
        stream.until(lambda: jsonl.exists() and len(lines_of(jsonl)) > 3)
        assert stream.end()[0] == 0


def test_a_terminal_that_goes_away_ends_the_run_like_sigterm(toy_bundle, tmp_path):
    jsonl = tmp_path / "x.jsonl"
    command = arguments(toy_bundle, "--source", PATTERN, "--jsonl", jsonl)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment())
    deadline = time.monotonic() + 40
    with open(terminal, "rb", buffering=0) as shown:
        while not (jsonl.exists() and len(lines_of(jsonl)) > 5):
            assert time.monotonic() < deadline
            if select.select([shown], [], [], 0.05)[0]:
                shown.read(4096)
        os.kill(pid, signal.SIGHUP)  # while it is there, it is a wish for other settings
        time.sleep(0.3)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    ended, status = 0, 0
    while not ended:
        assert time.monotonic() < deadline
        ended, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)
    assert os.waitstatus_to_exitcode(status) == 0
    assert jsonl.read_text().endswith("\n") and len(lines_of(jsonl)) > 5


def _catches(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1], 16)
    return bool(caught >> (number - 1) & 1)


def test_several_videos_side_by_side(toy_bundle, tmp_path):
    videos = [write_video(tmp_path / name / "clip.mp4", 30 + 10 * n, 50 * n + 20) for n, name in enumerate("abc")]
    sources = [part for video in videos for part in ("--source", video)]
    jsonl, images = tmp_path / "x.jsonl", tmp_path / "pictures"
    done = run(toy_bundle, *sources, "--jsonl", jsonl, "--output", images, "--json")
    assert done.returncode == 0, done.stderr
    found = by_source(jsonl)
    for number, video in enumerate(videos):
        rows = found[str(video)]
        assert [row["frame"] for row in rows] == list(range(30 + 10 * number))
        assert all(row["score"] == pytest.approx((50 * number + 20) / 255, abs=0.02) for row in rows), "another's image"
        assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert {folder.name: len(list(folder.glob("[!.]*"))) for folder in images.iterdir()} == {
        "clip": 30, "clip-2": 40, "clip-3": 50,
    }  # fmt: skip
    summary = json.loads(done.stdout)
    assert [(source["name"], source["frames"]) for source in summary["sources"]] == [
        (str(video), 30 + 10 * number) for number, video in enumerate(videos)
    ]
    assert summary["frames"] == 120 and summary["dropped"] == 0

    done = run(toy_bundle, *sources, "--output", tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    assert [count_frames(tmp_path / f"out-{name}.mp4") for name in ("clip", "clip-2", "clip-3")] == [30, 40, 50]
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == ["out-clip-2.mp4", "out-clip-3.mp4", "out-clip.mp4"]
    assert str(videos[2]) in done.stdout, "counts by source in the summary"


class ShortCamera(BaseHTTPRequestHandler):
    """An MJPEG camera that breaks off when it is told to."""

    unplugged = threading.Event()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        _, data = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))
        while not self.unplugged.is_set():
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
            self.wfile.write(data.tobytes() + b"\r\n")
            time.sleep(0.02)

    def log_message(self, *_):
        """Keeps the test's output clean."""


def test_one_camera_that_fails_beside_one_that_does_not(toy_bundle, tmp_path):
    jsonl = tmp_path / "x.jsonl"
    with ThreadingHTTPServer(("127.0.0.1", 0), ShortCamera) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://me:s3cret@127.0.0.1:{server.server_port}/video"
        shown = f"http://***@127.0.0.1:{server.server_port}/video"
        with Running(
            toy_bundle, "--source", url, "--source", PATTERN, "--no-reconnect", "--jsonl", jsonl, "--json"
        ) as stream:
            stream.until(lambda: jsonl.exists() and len(by_source(jsonl)[shown]) > 5)
            ShortCamera.unplugged.set()
            time.sleep(1.0)
            count = len(by_source(jsonl)[PATTERN])
            stream.until(lambda: len(by_source(jsonl)[PATTERN]) > count + 20)
            code, stdout, stderr = stream.end()
        server.shutdown()
    assert code == 1
    failed, other = json.loads(stdout)["sources"]
    assert failed["name"] == shown and shown in failed["error"] and other["error"] is None
    assert other["name"] == PATTERN and other["frames"] > 20 and failed["frames"] > 5
    assert f"warning: {shown}" in stderr and "the other sources go on" in stderr
    assert f"error: 1 of 2 sources failed: {shown}" in stderr
    assert set(by_source(jsonl, "stream")) == {shown, other["name"]}
    assert "s3cret" not in stdout + stderr + jsonl.read_text()


def test_live_ones_and_files_do_not_go_together(toy_bundle, tmp_path):
    video = write_video(tmp_path / "clip.mp4", 3, 9)
    done = run(toy_bundle, "--source", PATTERN, "--source", video)
    assert done.returncode == 1
    assert "is live and" in done.stderr and "two processes" in done.stderr


def test_an_output_that_fails_does_not_end_a_live_run_and_is_said_once(toy_bundle, tmp_path):
    jsonl = tmp_path / "x.jsonl"
    jsonl.symlink_to("/dev/full")
    done = run(toy_bundle, "--source", PATTERN, "--max-frames", 120, "--jsonl", jsonl, "--json")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "No space left" in line] == [
        line for line in done.stderr.splitlines() if line.startswith("warning:") and "jsonl" in line
    ]
    assert done.stderr.count("No space left") == 1
    summary = json.loads(done.stdout)
    assert summary["frames"] == 120 and 100 <= summary["sink_dropped"]["jsonl"] <= 120
    assert summary["wall_s"] < 10

    files = run(toy_bundle, "--source", write_video(tmp_path / "clip.mp4", 30, 9), "--jsonl", jsonl)
    assert files.returncode == 1 and "No space left" in files.stderr, "where nothing may be lost it is a failure"


def test_a_live_run_goes_on_where_its_file_ends(toy_bundle, tmp_path):
    jsonl = tmp_path / "x.jsonl"
    for _ in range(2):
        assert run(toy_bundle, "--source", PATTERN, "--max-frames", 5, "--jsonl", jsonl).returncode == 0
    assert len(lines_of(jsonl)) == 10
    video = write_video(tmp_path / "clip.mp4", 3, 9)
    assert run(toy_bundle, "--source", video, "--jsonl", jsonl).returncode == 0
    assert len(lines_of(jsonl)) == 3, "a video's is its own"


def test_the_built_in_bundle_goes_by_the_user_s_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = own_settings(shipped_bundle(), [PATTERN])
    file.parent.mkdir()
    file.write_text("[decision]\nthreshold = 0.375\n")
    done = run(None, "--source", PATTERN, "--max-frames", 2, "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["threshold"] for line in done.stdout.splitlines()} == {0.375}
    assert f"settings: {file}" in done.stderr
    flag = run(None, "--source", PATTERN, "--max-frames", 2, "--jsonl", "-", "--threshold", 0.25)
    assert {json.loads(line)["threshold"] for line in flag.stdout.splitlines()} == {0.25}


def _get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def test_page_health_and_metrics_are_there_while_it_runs_and_the_page_after_files(toy_bundle, tmp_path):
    video, jsonl = write_video(tmp_path / "clip.mp4", 20, 200), tmp_path / "x.jsonl"
    port, page = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    with Running(
        toy_bundle, "--source", video, "--jsonl", jsonl, "--serve", f"127.0.0.1:{page}",
        "--health", address, "--metrics", address,
    ) as stream:  # fmt: skip
        stream.until(lambda: jsonl.exists() and len(lines_of(jsonl)) == 20)
        time.sleep(0.5)
        assert stream.process.poll() is None, "all is scored, and the page stays"
        assert "<html" in _get(page, "/").lower()
        assert json.loads(_get(port, "/healthz"))["status"] == "alive"
        assert "kanoclip_frames_total" in _get(port, "/metrics")
        code, stdout, stderr = stream.end()
    assert code == 0, stderr
    assert f"page: http://127.0.0.1:{page}/" in stdout and "20 frames in" in stdout


def test_an_address_that_is_taken_is_told_before_the_engine_is_loaded(toy_bundle):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for flag in ("--serve", "--health", "--metrics"):
            done = run(toy_bundle, "--source", PATTERN, flag, address)
            assert done.returncode == 1 and address in done.stderr, done.stderr
            assert len(done.stderr.splitlines()) == 1
