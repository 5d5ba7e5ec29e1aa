"""kanoclip-run as systemd and an orchestrator see it: messages, health checks, log lines and signals, end to end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from .helpers import free_port

PROGRAM = (str(Path(sys.executable).with_name("kanoclip-run")),)
PATTERN = "test://?width=320&height=240&fps=20&defect=0.5"
# The real program with something in it replaced.
PATCHED = """
import time
{patch}
from kanoclip.runtime.cli.main import run_main
run_main()
"""

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's"),
]


def patched(patch):
    return (sys.executable, "-c", PATCHED.format(patch=patch))


class Service:
    """A process as systemd starts it, with a socket of the test's own to speak to."""

    def __init__(self, folder, bundle, arguments, program, watchdog_s, environment):
        self._heard = []
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(folder / "notify"))
        self._manager.settimeout(0.05)
        self.port = free_port()
        self._errors = (folder / "stderr").open("w+")
        hidden = {"DISPLAY", "WAYLAND_DISPLAY", "FORCE_COLOR"}
        self.process = subprocess.Popen(
            [*program, "--bundle", str(bundle), "--no-window", "--quiet", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # no terminal, as under systemd
            cwd=folder,
            env={k: v for k, v in os.environ.items() if k not in hidden}
            | {
                "NOTIFY_SOCKET": str(folder / "notify"),
                "KANOCLIP_HEALTH": f"127.0.0.1:{self.port}",
                "PYTHONFAULTHANDLER": "1",
            }
            | ({"WATCHDOG_USEC": str(int(watchdog_s * 1e6))} if watchdog_s else {})
            | environment,
        )

    def heard(self):
        """All messages so far, a line each."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._heard += self._manager.recv(4096).decode().splitlines()
        return list(self._heard)

    def hears(self, wanted, count=1, seconds=60):
        """Waits for a message; fails where the process ends before."""
        deadline = time.monotonic() + seconds
        while sum(line.startswith(wanted) for line in self.heard()) < count:
            assert time.monotonic() < deadline, (wanted, self._heard, self.errors())
            assert self.process.poll() is None, (wanted, self._heard, self.errors())

    def waits(self, found, seconds=60):
        """Waits until something is so."""
        deadline = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < deadline and self.process.poll() is None, (self.process.poll(), self.errors())
            time.sleep(0.02)

    def check(self, name):
        """(status, body) of a health check; (0, {}) where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    def errors(self):
        self._errors.flush()
        self._errors.seek(0)
        return self._errors.read()

    def ends(self, number=signal.SIGTERM, seconds=30):
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._manager.close()
        self._errors.close()


@pytest.fixture
def start(tmp_path, toy_bundle):
    with contextlib.ExitStack() as running:

        def start(*arguments, program=PROGRAM, watchdog_s=None, bundle=toy_bundle, **environment):
            folder = tmp_path / "service"
            folder.mkdir()
            service = Service(folder, bundle, arguments, program, watchdog_s, environment)
            running.callback(service.close)
            return service

        yield start


def whole_lines(path):
    """The records of a file of JSON lines, all of them whole."""
    text = Path(path).read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


class TestSystemd:
    def test_ready_fed_reloaded_and_stopped(self, start, tmp_path):
        settings, lines = tmp_path / "line.toml", tmp_path / "frames.jsonl"
        settings.write_text("[decision]\nthreshold = 0.25\n")
        service = start("--source", PATTERN, "--jsonl", lines, "--config", settings, watchdog_s=1.5)
        service.hears("READY=1")
        assert lines.read_text(), "ready means scored"
        service.hears("WATCHDOG=1", 3, seconds=10)
        service.hears("STATUS=")
        settings.write_text("[decision]\nthreshold = 0.75\n")
        service.process.send_signal(signal.SIGHUP)
        service.hears("READY=1", 2)
        told = service.heard()
        reloading = told.index("RELOADING=1")
        assert re.fullmatch(r"MONOTONIC_USEC=\d+", told[reloading + 1])
        assert told.index("READY=1") < reloading < len(told) - told[::-1].index("READY=1")
        service.waits(lambda: whole_lines_so_far(lines)[-1]["threshold"] == 0.75)
        settings.write_text("[decision]\nthreshold = ")  # a reload that cannot be is said, and changes nothing
        service.process.send_signal(signal.SIGHUP)
        service.hears("READY=1", 3)
        service.waits(lambda: "line.toml" in service.errors())
        before = len(whole_lines_so_far(lines))
        service.waits(lambda: len(whole_lines_so_far(lines)) > before + 5)
        assert service.check("readyz")[0] == 200
        assert service.ends() == 0
        assert service.heard().count("STOPPING=1") == 1
        records = whole_lines(lines)
        assert {record["threshold"] for record in records} == {0.25, 0.75}
        assert [record["frame"] for record in records] == sorted({record["frame"] for record in records})

    def test_a_detector_that_hangs_is_not_fed_and_tells_where_it_hangs_when_it_is_killed(self, start):
        hangs = """
import threading
import kanoclip.runtime.service.liveness as liveness
import kanoclip.runtime.service.systemd as supervision
liveness.STUCK_S, supervision.STATUS_S = 2.0, 1.0
from kanoclip.runtime.detect.detector import Detector
score, count = Detector.submit, [0]
def hang_at_some_time(*arguments, **named):
    count[0] += 1
    if count[0] > 40:
        threading.Event().wait()
    return score(*arguments, **named)
Detector.submit = hang_at_some_time
"""
        service = start("--source", PATTERN, program=patched(hangs), watchdog_s=1.5)
        service.hears("READY=1")
        service.hears("STATUS=frames wait, and none was scored for")
        fed = service.heard().count("WATCHDOG=1")
        time.sleep(2.0)
        assert service.heard().count("WATCHDOG=1") == fed
        status, body = service.check("healthz")
        assert (status, body["status"]) == (503, "stuck") and "frames wait" in body["reasons"][0]
        assert service.ends(signal.SIGABRT) == -signal.SIGABRT  # what systemd sends
        assert "hang_at_some_time" in service.errors() and "watchdog is no longer fed" in service.errors()

    def test_a_boot_does_not_wait_for_a_camera(self, start, tmp_path):
        soon = "import kanoclip.runtime.service.systemd as supervision\nsupervision.READY_ANYWAY_S = 1.0\n"
        (tmp_path / "in").mkdir()
        service = start("--source", f"watch://{tmp_path / 'in'}", program=patched(soon), watchdog_s=1.5)
        service.hears("READY=1")
        service.hears("WATCHDOG=1", 3, seconds=10)
        assert service.check("healthz")[0] == 200
        status, body = service.check("readyz")
        assert status == 503 and "has delivered no frame yet" in body["reasons"][0]
        assert cv2.imwrite(str(tmp_path / "in" / "one.png"), np.zeros((40, 40, 3), np.uint8))
        service.waits(lambda: service.check("readyz")[0] == 200)
        assert service.ends() == 0


def whole_lines_so_far(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines(keepends=True) if line.endswith("\n")]


SLOW_LOAD = """
from kanoclip.runtime.detect.detector import Detector
load = Detector.load
def slowly(*arguments, **named):
    {wait}
    return load(*arguments, **named)
Detector.load = slowly
"""
IN_A_LIBRARY = "import ctypes; [ctypes.CDLL(None).pthread_mutex_lock(LOCK) for _ in range(2)]"


class TestHealth:
    def test_while_the_engine_is_built_it_is_alive_and_not_ready(self, start):
        service = start("--source", PATTERN, program=patched(SLOW_LOAD.format(wait="time.sleep(1.5)")))
        service.waits(lambda: service.check("healthz")[0] == 200)
        assert service.check("readyz") == (503, service.check("readyz")[1])
        assert service.check("readyz")[1]["reasons"] == ["the engine is being loaded"]
        service.waits(lambda: service.check("readyz")[0] == 200)
        told = service.check("readyz")[1]
        assert told["bundle"] == "toy" and told["frames"] > 0 and told["sources"][0]["delivered"] > 0
        assert service.ends() == 0

    def test_the_container_s_check(self, start):
        script = str(Path(__file__).parents[2] / "docs" / "deploy" / "healthcheck.sh")

        def check(*arguments):
            environment = {**os.environ, "KANOCLIP_HEALTH": f"127.0.0.1:{service.port}"}
            return subprocess.run(["sh", script, *arguments], env=environment, capture_output=True, timeout=30)

        service = start("--source", PATTERN)
        service.waits(lambda: service.check("readyz")[0] == 200)
        assert check().returncode == 0 and json.loads(check().stdout)["status"] == "alive"
        assert check("readyz").returncode == 0
        assert check("nothing").returncode == 1
        assert service.ends() == 0
        gone = check()
        assert gone.returncode == 1 and b"refused" in gone.stderr

    def test_a_taken_port_is_one_line(self, start, toy_bundle):
        first = start("--source", PATTERN)
        first.waits(lambda: first.check("healthz")[0] == 200)
        done = subprocess.run(
            [*PROGRAM, "--bundle", str(toy_bundle), "--source", PATTERN, "--health", f"127.0.0.1:{first.port}"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert f"127.0.0.1:{first.port} cannot be listened on" in done.stderr


class TestLogLines:
    def test_all_of_it_is_json(self, start, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "broken.png").write_bytes(b"no image")
        assert cv2.imwrite(str(tmp_path / "in" / "one.png"), np.zeros((40, 40, 3), np.uint8))
        service = start("--source", tmp_path / "in", "--log-format", "json")
        assert service.process.wait(60) == 1
        lines = [json.loads(line) for line in service.errors().splitlines()]
        assert lines and all(list(line)[:4] == ["time", "level", "logger", "message"] for line in lines)
        assert any("1 of 2 images could not be read" in line["message"] for line in lines)

    @pytest.mark.parametrize("how", ["option", "variable"])
    def test_also_what_a_command_is_refused_for(self, start, tmp_path, how):
        options = ["--log-format=json"] if how == "option" else []
        service = start(
            "--source", "rtsp://me:s3cret@127.0.0.1:1/x", "--no-reconnect", *options,
            **({} if options else {"KANOCLIP_LOG_FORMAT": "json"}),
        )  # fmt: skip
        assert service.process.wait(60) == 1
        assert "s3cret" not in service.errors()
        line = json.loads(service.errors().splitlines()[-1])
        assert (line["level"], line["exit_code"]) == ("error", 1) and "127.0.0.1" in line["message"]


class Camera:
    """An MJPEG camera over HTTP on loopback, which can be switched off and on again."""

    def __init__(self):
        self.on = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while camera.on.is_set():
                        image = cv2.imencode(".jpg", np.full((120, 160, 3), 128, np.uint8))[1].tobytes()
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                        self.wfile.write(head.encode() + image + b"\r\n")
                        time.sleep(0.05)

            def log_message(self, *arguments):
                pass

        self._handler = Handler
        self.port = free_port()
        self.switch_on()

    def switch_on(self):
        self.on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def switch_off(self):
        self.on.clear()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def camera():
    camera = Camera()
    yield camera
    camera.switch_off()


class TestSignals:
    """SIGTERM ends in peace, whatever goes on: the frame in work is finished and written, exit code 0."""

    @pytest.fixture
    def video(self, tmp_path):
        writer = cv2.VideoWriter(str(tmp_path / "long.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (320, 240))
        for index in range(1500):
            writer.write(np.full((240, 320, 3), index % 200, np.uint8))
        writer.release()
        return tmp_path / "long.mp4"

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "many").mkdir()
        image = cv2.imencode(".jpg", np.full((480, 640, 3), 90, np.uint8))[1].tobytes()
        first = tmp_path / "many" / "0000.jpg"
        first.write_bytes(image)
        for index in range(1, 1500):
            os.link(first, first.with_name(f"{index:04d}.jpg"))
        return tmp_path / "many"

    @pytest.mark.parametrize(
        "kind, times",
        [("video", 1), ("folder", 1), ("live", 1), ("watched", 1), ("http", 1), ("video", 2), ("live", 2)],
    )
    def test_in_the_middle(self, start, request, tmp_path, kind, times):
        lines = tmp_path / "frames.jsonl"
        if kind == "http":
            source = f"http://127.0.0.1:{request.getfixturevalue('camera').port}/"
        elif kind == "watched":
            source = f"watch://{request.getfixturevalue('folder')}?existing=1"
        else:
            source = PATTERN if kind == "live" else request.getfixturevalue(kind)
        service = start("--source", source, "--jsonl", lines, "--output", tmp_path / "out.mp4")
        service.waits(lambda: lines.exists() and len(whole_lines_so_far(lines)) > 5)
        for _ in range(times - 1):
            service.process.send_signal(signal.SIGTERM)
        assert service.ends() == 0, service.errors()
        records = whole_lines(lines)
        assert 5 < len(records) < 1500 and not service.errors()
        capture, count = cv2.VideoCapture(str(tmp_path / "out.mp4")), 0
        while capture.grab():
            count += 1
        assert count > 0 and (kind in ("live", "http") or count == len(records)), "the video is whole"

    def test_while_the_camera_is_away(self, start, tmp_path, camera):
        lines = tmp_path / "frames.jsonl"
        service = start("--source", f"http://127.0.0.1:{camera.port}/", "--jsonl", lines, watchdog_s=1.5)
        service.hears("READY=1")
        camera.switch_off()
        service.waits(lambda: "is away" in str(service.check("readyz")[1].get("reasons")))
        fed = service.heard().count("WATCHDOG=1")
        service.hears("WATCHDOG=1", fed + 3, seconds=10)  # no reason to be killed
        assert service.check("healthz")[0] == 200
        camera.switch_on()
        service.waits(lambda: service.check("readyz")[0] == 200)
        camera.switch_off()
        service.waits(lambda: "is away" in str(service.check("readyz")[1].get("reasons")))
        started = time.monotonic()
        assert service.ends() == 0
        assert time.monotonic() - started < 10
        assert whole_lines(lines)
        camera.switch_on()  # for its own end

    @pytest.mark.parametrize("where", ["python", "library"])
    def test_while_the_engine_is_built(self, start, where):
        wait = "time.sleep(60)" if where == "python" else IN_A_LIBRARY
        patch = "import ctypes\nLOCK = ctypes.create_string_buffer(256)\n" + SLOW_LOAD.format(wait=wait)
        service = start("--source", PATTERN, program=patched(patch))
        service.waits(lambda: service.check("healthz")[0] == 200)
        service.process.send_signal(signal.SIGHUP)  # a reload then is none
        time.sleep(0.3)
        assert service.process.poll() is None
        started = time.monotonic()
        assert service.ends() == 0 and not service.errors()
        assert time.monotonic() - started < 10

    def test_two_interrupts_end_it_at_once(self, start):
        slow = """
from kanoclip.runtime.sinks.jsonl import JsonLinesSink
JsonLinesSink.close = lambda self: time.sleep(60)
"""
        service = start("--source", PATTERN, "--jsonl", "frames.jsonl", program=patched(slow))
        service.hears("READY=1")
        service.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert service.process.poll() is None
        assert service.ends(signal.SIGINT) == 130
        assert service.errors().splitlines()[-1] == "error: interrupted"
