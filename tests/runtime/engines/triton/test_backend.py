"""The backend of a Triton server, against a gRPC server that speaks its protocol; no real Triton is to be had here."""

from __future__ import annotations

import logging
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc")
from triton_server import serve

from kanoclip.export.triton import write_repository
from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.detect.detector import Detector
from kanoclip.runtime.engines import create_backend
from kanoclip.runtime.engines.doctor import compare
from kanoclip.runtime.errors import BackendError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def served(tmp_path, make_toy_bundle):
    """Starts a server of a bundle; gives the bundle's folder, the service and the address."""
    running = []

    def start(name="toy", **options):
        folder = make_toy_bundle(tmp_path / "b" / f"{name}.kanoclip", name=name, **options)
        (tmp_path / "models").mkdir(exist_ok=True)
        write_repository(Bundle.open(folder), tmp_path / "models")
        server, service, port = serve(tmp_path / "models")
        running.append(server)
        return folder, service, f"triton://127.0.0.1:{port}/{name}"

    yield start
    for server in running:
        server.stop(0)


def pictures(count, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("classes", [("object",), ("bolt", "nut")])
@pytest.mark.parametrize(("batch", "dynamic"), [(1, False), (4, False), (4, True), (1, True)])
def test_the_server_gives_the_answers_of_the_graph_itself(served, classes, batch, dynamic):
    folder, service, url = served(classes=classes, max_batch=batch, dynamic=dynamic)
    frames = list(pictures(5, size=48))
    with (
        Detector.load(folder, backend=url) as remote,
        Detector.load(folder, backend="onnxruntime", device="cpu") as local,
    ):
        assert remote.backend.name == url and remote.batch_size == batch
        for name in classes:
            for found, expected in zip(remote.batch(frames, name), local.batch(frames, name), strict=True):
                assert found.score == expected.score and found.class_name == name
                np.testing.assert_array_equal(found.map, expected.map)
    assert service.asked[: -(-5 // batch)] == ([4, 1] if dynamic and batch > 1 else [batch] * -(-5 // batch))


@pytest.mark.parametrize("classes", [("object",), ("bolt", "nut")])
@pytest.mark.parametrize(("batch", "dynamic"), [(1, False), (4, False), (4, True)])
def test_descriptors_come_over_the_network_only_where_they_are_wanted(served, toy_descriptors, classes, batch, dynamic):
    folder, service, url = served(classes=classes, max_batch=batch, dynamic=dynamic, grid=(4, 8))
    frames = pictures(5)
    with Detector.load(folder, backend=url) as remote:
        assert len(remote.batch(list(frames), classes[-1])) == 5
        assert service.fetched == [["map", "score"]] * -(-5 // batch)
        service.fetched.clear()
        np.testing.assert_allclose(remote.describe(list(frames)), toy_descriptors(frames, (4, 8)), atol=1e-6)
        assert service.fetched == [["descriptor"]] * -(-5 // batch)
        service.forget = ("descriptor",)
        with pytest.raises(BackendError, match=r"gave no descriptor of .*: serve the bundle's own model"):
            remote.describe(list(frames))


@pytest.mark.parametrize(("batch", "dynamic"), [(1, False), (4, True)])
def test_a_memory_goes_along_with_every_request(served, make_memory, toy_answers, batch, dynamic):
    folder, _, url = served(max_batch=batch, dynamic=dynamic, grid=(4, 8), memory_rows=16)
    given = pictures(batch)
    with Detector.load(folder, backend=url) as remote:
        engine = remote.backend
        plain, described = engine.run(given, None), engine.describe(given)
        for rows, seed in ((1, 1), (16, 2)):
            memory = make_memory(rows, seed)
            wanted = toy_answers(given, described, memory)
            for found, expected in zip(engine.run(given, None, memory), wanted, strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-5)
            for found, before in zip(engine.run(given, None), plain, strict=True):
                np.testing.assert_array_equal(found, before)


def test_a_server_without_the_bundle_s_descriptors(served, make_toy_bundle, tmp_path):
    mine = make_toy_bundle(tmp_path / "mine.kanoclip", grid=(4, 4))
    _, _, url = served()
    with pytest.raises(BackendError, match=r"has the outputs map .*and the bundle descriptor FP32 \[1, 16, 3\]"):
        Detector.load(mine, backend=url)
    old, _, url = served("old")
    with (
        Detector.load(old, backend=url) as detector,
        pytest.raises(BackendError, match=r"has no descriptor output, .*: export it again"),
    ):
        detector.backend.describe(pictures(1))


def test_the_doctor_scores_a_server_too(served):
    folder, _, url = served(samples=2)
    found = compare(Bundle.open(folder), url)
    assert found.agrees and found.compared == 2 and found.backend == url


def test_two_lanes_ask_at_the_same_time(served):
    folder, service, url = served()
    service.delay_s = 0.3
    with Detector.load(folder, backend=url, workers=2) as detector, ThreadPoolExecutor(2) as threads:
        assert detector.workers == 2
        detector.warmup(1)
        frames = pictures(4)
        started = time.monotonic()
        scores = [found.score for found in threads.map(detector, frames)]
        assert time.monotonic() - started < 4 * 0.3
    with Detector.load(folder, backend="onnxruntime", device="cpu") as local:
        assert scores == [local(frame).score for frame in frames]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"size": 48}, r"has the inputs frame UINT8 \[1, 48, 48, 3\], and the bundle frame UINT8 \[1, 32, 32, 3\]"),
        ({"classes": ("bolt", "nut")}, r"has the inputs class_index INT64 \[1\], frame"),
        ({"max_batch": 4}, r"frame UINT8 \[4, 32, 32, 3\], and"),
        ({"dynamic": True}, r"frame UINT8 \[-1, 32, 32, 3\], and"),
    ],
)
def test_another_model_is_refused_with_what_it_is(served, make_toy_bundle, tmp_path, other, said):
    mine = make_toy_bundle(tmp_path / "mine.kanoclip")
    _, _, url = served(**other)
    with pytest.raises(BackendError, match=said) as caught:
        Detector.load(mine, backend=url)
    assert "kanoclip-export --triton" in str(caught.value) and "\n" not in str(caught.value)


def change_config(folder, pattern, by):
    path = folder.parents[1] / "models" / "toy" / "config.pbtxt"
    text, changes = re.subn(pattern, by, path.read_text())
    assert changes
    path.write_text(text)


def test_the_same_shapes_of_another_graph(served, caplog):
    folder, _, url = served()
    change_config(folder, r'string_value: "\w{64}"', f'string_value: "{"ab" * 32}"')
    with pytest.raises(BackendError, match=r"serves another bundle's model \(graph abababababab, and not \w{12}\)"):
        Detector.load(folder, backend=url)
    change_config(folder, "parameters .*", "")
    with caplog.at_level(logging.WARNING), Detector.load(folder, backend=url) as detector:
        assert "does not say which bundle its model is of" in caplog.text
        assert 0 < detector(pictures(1)[0]).score <= 1


def test_a_server_that_takes_smaller_batches(served):
    folder, _, url = served(max_batch=4, dynamic=True)
    change_config(folder, "max_batch_size: 4", "max_batch_size: 2")
    with pytest.raises(BackendError, match="takes batches of up to 2, the bundle gives up to 4"):
        Detector.load(folder, backend=url)


def test_no_such_model_and_no_such_version(served):
    folder, _, url = served()
    with pytest.raises(BackendError, match="nosuch refuses: Request for unknown model: 'nosuch' is not found"):
        Detector.load(folder, backend=url.replace("toy", "nosuch"))
    with Detector.load(folder, backend=f"{url}/1") as detector:
        detector(pictures(1)[0])
    with Detector.load(folder, backend=f"{url}/2") as detector, pytest.raises(BackendError, match="version 2 is not"):
        detector(pictures(1)[0])


def test_an_answer_that_lacks_something(served):
    folder, service, url = served()
    with Detector.load(folder, backend=url) as detector:
        service.forget = ("map",)
        with pytest.raises(BackendError, match=r"gave no map of \(1, 32, 32\)"):
            detector(pictures(1)[0])


def test_another_version_in_the_middle_is_checked_before_its_answer_is_used(served):
    folder, service, url = served()
    with Detector.load(folder, backend=url) as detector:
        frame = pictures(1)[0]
        before = detector(frame).score
        service.version = "2"
        assert detector(frame).score == before
        service.version = "3"
        change_config(folder, r'string_value: "\w{64}"', f'string_value: "{"ab" * 32}"')
        with pytest.raises(BackendError, match="serves another bundle's model"):
            detector(frame)


def test_nobody_there(toy_bundle):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(BackendError, match=r"has not answered for .* is the server up, and its model loaded\?"):
            Detector.load(toy_bundle, backend=f"triton://127.0.0.1:{port}/toy?wait=0.5")
        assert time.monotonic() - started < 10


def test_a_server_that_hangs(served):
    """It takes the question and never answers: the time is bounded, whatever it does."""
    folder, service, url = served()
    with Detector.load(folder, backend=f"{url}?timeout=0.2&wait=0.5") as detector:
        detector(pictures(1)[0])
        service.delay_s = 2.0
        started = time.monotonic()
        with pytest.raises(BackendError, match=r"DEADLINE_EXCEEDED"):
            detector(pictures(1)[0])
        assert 0.5 <= time.monotonic() - started < 5
        service.delay_s = 0.0
        assert detector(pictures(1)[0]).score > 0


class Process:
    """The server in a process of its own, that can be killed."""

    def __init__(self, repository, port):
        script = Path(__file__).parents[3] / "support" / "triton_server.py"
        self._command = [sys.executable, str(script), str(repository), str(port)]
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def process(tmp_path, make_toy_bundle):
    folder = make_toy_bundle(tmp_path / "b" / "toy.kanoclip")
    (tmp_path / "models").mkdir()
    write_repository(Bundle.open(folder), tmp_path / "models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Process(tmp_path / "models", port)
    yield folder, server, f"triton://127.0.0.1:{port}/toy"
    server.kill()


def test_killed_and_started_again_no_frame_is_lost(process, caplog):
    folder, server, url = process
    frames = pictures(30)
    with Detector.load(folder, backend="onnxruntime", device="cpu") as local:
        expected = [local(frame).score for frame in frames]
    with Detector.load(folder, backend=f"{url}?wait=40") as detector, caplog.at_level(logging.WARNING):
        found = [detector(frame).score for frame in frames[:10]]
        server.kill()
        back = threading.Timer(0.5, server.start)
        back.start()
        found += [detector(frame).score for frame in frames[10:]]
        back.join()
    assert found == expected
    said = [record.getMessage() for record in caplog.records if "toy" in record.getMessage()]
    assert len(said) == 2 and "does not answer" in said[0] and "answers again after" in said[1]


def test_started_again_with_another_model(process):
    folder, server, url = process
    with Detector.load(folder, backend=f"{url}?wait=40") as detector:
        detector(pictures(1)[0])
        server.kill()
        change_config(folder, r'string_value: "\w{64}"', f'string_value: "{"ab" * 32}"')
        back = threading.Timer(0.3, server.start)
        back.start()
        with pytest.raises(BackendError, match="serves another bundle's model"):
            detector(pictures(1)[0])
        back.join()


def test_closed(served):
    folder, _, url = served()
    detector = Detector.load(folder, backend=url)
    detector.close()
    detector.close()
    with pytest.raises(BackendError, match="is closed: load the bundle again"):
        detector(pictures(1)[0])


@pytest.mark.programs("openssl")
def test_tls_is_checked(tmp_path, program, served):
    import grpc

    folder, _, _ = served()
    files = ["-keyout", str(tmp_path / "k"), "-out", str(tmp_path / "c")]
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", *files],
        check=True,
        capture_output=True,
    )
    pair = (tmp_path / "k").read_bytes(), (tmp_path / "c").read_bytes()
    server, _, port = serve(tmp_path / "models", credentials=grpc.ssl_server_credentials([pair]))
    try:
        for url in (f"tritons://localhost:{port}/toy?wait=0.3", f"triton://localhost:{port}/toy?wait=0.3"):
            with pytest.raises(BackendError, match="has not answered"):
                Detector.load(folder, backend=url)
    finally:
        server.stop(0)


def test_flags_that_are_the_servers_matter(toy_bundle):
    for options in ({"device": "cuda"}, {"threads": 2}):
        with pytest.raises(BackendError, match="decides by itself"):
            create_backend(Bundle.open(toy_bundle), "triton://gpu/toy", **options)
