"""`kanoclip-run --backend triton://` against a server of the tests' own, which speaks Triton's protocol."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc")

from kanoclip.export.triton import write_repository
from kanoclip.runtime import Detector
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.tiles import TileGrid

from .helpers import environment, in_process

BIN = Path(sys.executable).parent
SERVER = Path(__file__).parents[1] / "support" / "triton_server.py"
PATTERN = "test://?width=96&height=64&fps=20"

pytestmark = pytest.mark.timeout(180)


class Server:
    """The server, which can be killed and started again."""

    def __init__(self, folder, *pair):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._command = [sys.executable, str(SERVER), str(folder), str(self.port), *map(str, pair)]
        self._process = None

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


@pytest.fixture
def server(tmp_path, make_toy_bundle):
    folder = make_toy_bundle(tmp_path / "toy.kanoclip", samples=2)
    (tmp_path / "models").mkdir()
    write_repository(Bundle.open(folder), tmp_path / "models")
    made = Server(tmp_path / "models")
    made.start()
    yield made
    made.kill()


def start(*arguments, cwd, **more):
    command = [str(BIN / "kanoclip-run"), *map(str, arguments), "--no-window", "--quiet"]
    variables = environment(COLUMNS="250") | more
    return subprocess.Popen(command, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(path):
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(true, run):
    deadline = time.monotonic() + 60
    while not true():
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_images_scored_by_a_server_as_they_are_here(server, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), noise)
    told = {}
    for name, backend in (("here", "onnxruntime"), ("there", f"triton://127.0.0.1:{server.port}/toy")):
        run = start("--source", "pictures", "--backend", backend, "--jsonl", f"{name}.jsonl", cwd=tmp_path)
        _, said = run.communicate(timeout=60)
        assert run.returncode == 0, said
        told[name] = [(row["source"], row["score"], row["is_anomalous"]) for row in rows(tmp_path / f"{name}.jsonl")]
    assert told["here"] == told["there"] and len(told["there"]) == 6


def test_tiles_go_to_a_server_too(tmp_path, make_toy_bundle):
    folder = make_toy_bundle(tmp_path / "toy.kanoclip", dynamic=True, max_batch=2, tiles=TileGrid(3, 1, 0.25))
    (tmp_path / "models").mkdir()
    write_repository(Bundle.open(folder), tmp_path / "models")
    made = Server(tmp_path / "models")
    try:
        made.start()
        noise = np.random.default_rng(0).integers(0, 256, (80, 32, 3), dtype=np.uint8)
        with Detector.load(folder, backend="onnxruntime", device="cpu") as here:
            one = here(noise)
        with Detector.load(folder, backend=f"triton://127.0.0.1:{made.port}/toy") as there:
            other = there(noise)
    finally:
        made.kill()
    assert one.score == other.score and one.map.shape == (80, 32)
    np.testing.assert_array_equal(one.map, other.map)


def test_an_archive_is_scored_by_a_server_as_it_is_here(server, tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / "pictures" / f"{number}.png"), noise)
    command = [str(BIN / "kanoclip-score"), "--source", "pictures", "--bundle", "toy.kanoclip", "--slice", "3"]
    url = f"triton://127.0.0.1:{server.port}/toy"
    for name, more in (("here", ["onnxruntime"]), ("there", [url]), ("there", [url, "--processes", "1"])):
        arguments = [*command, "--output", f"{name}.parquet", "--quiet", "--json", "--backend", *more]
        done = subprocess.run(arguments, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scored_earlier"] == 20  # the second time nothing was left to do
    here, there = (pyarrow.read_table(tmp_path / f"{name}.parquet") for name in ("here", "there"))
    assert here.to_pylist() == there.to_pylist() and here.num_rows == 20

    refused = subprocess.run([*arguments, "--threads", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "leave --threads out" in refused.stderr


def test_a_server_that_is_killed_and_comes_back_and_one_that_does_not(server, tmp_path):
    url = f"triton://127.0.0.1:{server.port}/toy"
    lines = tmp_path / "frames.jsonl"
    run = start("--source", PATTERN, "--backend", f"{url}?wait=60", "--jsonl", lines, cwd=tmp_path)
    wait_for(lambda: len(rows(lines)) >= 5, run)
    server.kill()
    time.sleep(0.5)
    before = len(rows(lines))
    server.start()
    wait_for(lambda: len(rows(lines)) >= before + 5, run)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 0, said
    assert f"warning: {url} does not answer" in said and f"warning: {url} answers again after" in said

    run = start("--source", PATTERN, "--backend", f"{url}?wait=0.5", "--jsonl", tmp_path / "b.jsonl", cwd=tmp_path)
    wait_for(lambda: len(rows(tmp_path / "b.jsonl")) >= 5, run)
    server.kill()
    _, said = run.communicate(timeout=30)
    assert run.returncode == 1 and said.splitlines()[-1].startswith(f"error: {url} has not answered for")


def test_it_can_be_stopped_while_the_server_is_away(server, tmp_path):
    lines = tmp_path / "frames.jsonl"
    url = f"triton://127.0.0.1:{server.port}/toy?wait=600"
    run = start("--source", PATTERN, "--backend", url, "--jsonl", lines, cwd=tmp_path)
    wait_for(lambda: len(rows(lines)) >= 5, run)
    server.kill()
    time.sleep(0.5)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=15)
    assert run.returncode == 0 and "was away when the run ended" in said.splitlines()[-1]


@pytest.mark.programs("openssl")
def test_tls_with_a_certificate_of_the_plant(server, tmp_path, program):
    key, certificate = tmp_path / "k", tmp_path / "c"
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    secure = Server(tmp_path / "models", key, certificate)
    secure.start()
    try:
        options = ("--source", PATTERN, "--max-frames", 3, "--backend", f"tritons://localhost:{secure.port}/toy?wait=5")
        run = start(*options, cwd=tmp_path, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(certificate))
        _, said = run.communicate(timeout=60)
        assert run.returncode == 0, said
    finally:
        secure.kill()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--backend", "tritton"], 2, "unknown backend 'tritton': choose one of auto, onnxruntime"),
        (["--backend", "triton://gpu"], 2, "is no address of a Triton server: triton://HOST[:PORT]/MODEL"),
        (["--backend", "triton://127.0.0.1:1/toy?wait=0"], 1, "is the server up, and its model loaded?"),
        (["--backend", "triton://127.0.0.1:1/toy", "--device", "cuda"], 1, "leave --device and --threads out"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, toy_bundle, arguments, code, said):
    command = ("kanoclip-run", "--bundle", toy_bundle, "--source", PATTERN, *arguments, "--no-window", "--quiet")
    done = in_process(*command, cwd=tmp_path, env=environment(COLUMNS="250"))
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: triton://")]
    assert len(lines) == 1 and lines[0].startswith("error: ") and said in lines[0], done.stderr


def test_a_line_learns_its_part_from_a_server_s_answers(make_toy_bundle, tmp_path):
    folder = make_toy_bundle(tmp_path / "toy.kanoclip", grid=(4, 4), memory_rows=32, samples=2)
    (tmp_path / "models").mkdir()
    (tmp_path / "parts").mkdir()
    write_repository(Bundle.open(folder), tmp_path / "models")
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / "parts" / f"{number}.png"), noise)
    server, found = Server(tmp_path / "models"), {}
    server.start()
    try:
        for name, backend in (("here", "onnxruntime"), ("there", f"triton://127.0.0.1:{server.port}/toy")):
            done = in_process(
                "kanoclip-run", "--bundle", folder, "--backend", backend, "--source", tmp_path / "parts",
                "--no-window", "--warm-up", 6, "--json",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            found[name] = json.loads(done.stdout)["warm_up"]["classes"]["object"]
    finally:
        server.kill()
    assert found["there"]["threshold"] == pytest.approx(found["here"]["threshold"], abs=1e-5)
    assert found["there"]["left_out"] == found["here"]["left_out"]
