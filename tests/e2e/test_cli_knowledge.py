"""`kanoclip-knowledge` as a user runs it, against a real chat-completion server on loopback."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from .helpers import in_process

EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
COMMAND = str(Path(sys.executable).parent / "kanoclip-knowledge")
KEY = "sk-secret-0123456789abcdef"
ENVIRONMENT = {**os.environ, "OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"}


@dataclass
class Question:
    """What arrived: the prompt, the image if any, the model and the header that holds the key."""

    text: str
    image: np.ndarray | None
    model: str
    authorization: str


@dataclass
class Answer:
    """What goes back: a chat completion of `text`, or the raw body."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drop: bool = False


def descriptions(question: Question) -> Answer:
    """What a good model answers: to the paper's first question JSON, to its second a sentence."""
    if question.image is not None:
        height, width = question.image.shape[:2]
        return Answer(f"A dark scratch in the upper left,\nseen at {width} x {height} pixels.")
    name = question.text.partition("abnormal image of ")[2].partition(" looks like")[0]
    texts = [f"An abnormal image of {name} may show defect {i}." for i in range(5)]
    return Answer(json.dumps({"background": f"A clean {name}.", "descriptions": texts}))


class ChatServer:
    """Answers with `reply`, and keeps what was asked."""

    def __init__(self) -> None:
        self.reply: Callable[[Question], Answer] = descriptions
        self.asked: list[Question] = []
        self.times: list[float] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = outer._question(body, self.headers.get("Authorization", ""))
                outer.times.append(time.monotonic())
                outer.asked.append(question)
                answer = outer.reply(question)
                if answer.drop:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                message = {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": answer.text},
                }
                record = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [message]}
                content = json.dumps(record).encode() if answer.body is None else answer.body
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _question(self, body: dict[str, Any], authorization: str) -> Question:
        content = body["messages"][0]["content"]
        if isinstance(content, str):
            return Question(content, None, body["model"], authorization)
        text = next(part["text"] for part in content if part["type"] == "text")
        url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
        head, _, data = url.partition(",")
        assert head == "data:image/jpeg;base64"
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        return Question(text, image, body["model"], authorization)


@pytest.fixture
def server():
    chat = ChatServer()
    yield chat
    chat.server.shutdown()
    chat.server.server_close()


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Two categories with four and two anomalous images."""
    root = tmp_path_factory.mktemp("data")
    images = sorted((EXAMPLES / "test" / "colour").iterdir())
    goods = sorted((EXAMPLES / "test" / "good").iterdir())
    for category, bad in (("metal_nut", images[:4]), ("bottle", images[4:6])):
        for folder, paths in (("test/good", goods[:1]), ("test/scratch", bad)):
            (root / category / folder).mkdir(parents=True)
            for path in paths:
                image = cv2.resize(cv2.imread(str(path)), (80, 60))
                cv2.imwrite(str(root / category / folder / f"{path.stem}.png"), image)
    return root


def started(*arguments):
    """The installed command, in a process of its own."""
    command = [COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ENVIRONMENT)
    assert KEY not in done.stdout + done.stderr
    return done


def run(*arguments, env=ENVIRONMENT):
    """In this process."""
    done = in_process("kanoclip-knowledge", *arguments, env=env)
    assert KEY not in done.stdout + done.stderr
    return done


def build(chat, output, *arguments, **options):
    given = list(map(str, arguments))
    flags = [] if "--retries" in given else ["--retries", "0"]
    return run("build", "--endpoint", chat.url, "--output", output, *flags, *given, **options)


def entries(path):
    assert KEY not in path.read_text()
    return json.loads(path.read_text())["datasets"]


def refused(done, code, *words):
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert str(word) in last, done.stderr


def test_a_dataset_is_described_class_by_class_and_image_by_image(server, data, tmp_path):
    output = tmp_path / "new" / "base.json"
    options = ["--model", "llm", "--vision-model", "vqa", "--dataset", "mvtec", "--root", data]
    done = build(server, output, *options)
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stderr
    nut = entries(output)["mvtec"]["metal_nut"]
    assert nut["class_name"] == "metal nut" and nut["background"] == "A clean metal nut."
    assert nut["abnormal"] == [f"An abnormal image of metal nut may show defect {i}." for i in range(5)]
    assert [one["image"] for one in nut["observed"]] == sorted(one["image"] for one in nut["observed"])
    assert nut["observed"][0]["image"].startswith("metal_nut/test/scratch/")
    assert nut["observed"][0]["text"] == "A dark scratch in the upper left, seen at 80 x 60 pixels."
    assert len(nut["observed"]) == 4 and len(entries(output)["mvtec"]["bottle"]["observed"]) == 2
    assert Counter(question.model for question in server.asked) == {"llm": 2, "vqa": 6}
    assert all(question.authorization == f"Bearer {KEY}" for question in server.asked)
    vqa = next(question for question in server.asked if question.image is not None)
    assert vqa.text.startswith("Q: Identify anomalies in the input image of the specified class (")
    done = build(server, output, *options)
    assert done.returncode == 0 and len(server.asked) == 8, "nothing is asked twice"
    done = build(server, output, *options, "--force", "--images-per-class", 1, "--category", "bottle")
    assert done.returncode == 0 and len(server.asked) == 10
    assert len(entries(output)["mvtec"]["bottle"]["observed"]) == 1
    assert len(entries(output)["mvtec"]["metal_nut"]["observed"]) == 4
    done = run("check", output, "--json")
    assert json.loads(done.stdout)[0]["observed"] == 5


def test_classes_without_a_dataset_and_what_training_makes_of_them(server, tmp_path):
    done = build(server, tmp_path / "own.json", "--model", "llm", "--class", "gear wheel", "--class", "Ölfaß 螺丝")
    assert done.returncode == 0, done.stderr
    assert set(entries(tmp_path / "own.json")["own"]) == {"gear wheel", "Ölfaß 螺丝"}
    done = run("show", "GEAR wheel", "--file", tmp_path / "own.json")
    assert "defect 4" in done.stdout and "螺丝" not in done.stdout


def test_a_killed_build_asks_only_for_the_rest(server, tmp_path):
    """Killed without a chance to save: what was saved before is not asked again."""
    output = tmp_path / "base.json"
    names = [f"thing {i}" for i in range(40)]

    def slow(question):
        time.sleep(0.25)
        return descriptions(question)

    server.reply = slow
    arguments = ["build", "--endpoint", server.url, "--output", output, "--model", "m", "--parallel", 1]
    for name in names:
        arguments += ["--class", name]
    process = subprocess.Popen([COMMAND, *map(str, arguments)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (output.exists() and entries(output)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    known = set(entries(output)["own"])
    assert 0 < len(known) < 40
    server.reply, server.asked = descriptions, []
    done = started(*arguments)
    assert done.returncode == 0, done.stderr
    asked = {question.text.partition("abnormal image of ")[2].partition(" looks")[0] for question in server.asked}
    assert asked == set(names) - known
    assert set(entries(output)["own"]) == set(names)


def test_interrupt_saves_what_was_answered(server, tmp_path):
    output = tmp_path / "base.json"
    hold = threading.Event()

    def third_waits(question):
        if "thing 3" in question.text:
            hold.wait(30)
        return descriptions(question)

    server.reply = third_waits
    arguments = ["build", "--endpoint", server.url, "--output", output, "--model", "m", "--parallel", 1]
    for i in range(6):
        arguments += ["--class", f"thing {i}"]
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(server.asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=30)[1]
    hold.set()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert set(entries(output)["own"]) == {"thing 0", "thing 1", "thing 2"}


@pytest.mark.parametrize("failure", [Answer(status=500), Answer(status=503), Answer(drop=True)])
def test_failures_that_pass_are_tried_again(server, tmp_path, failure):
    def twice(question):
        return failure if len(server.asked) <= 2 else descriptions(question)

    server.reply = twice
    done = build(server, tmp_path / "b.json", "--model", "m", "--class", "nut", "--retries", 3)
    assert done.returncode == 0, done.stderr
    assert len(server.asked) == 3
    assert server.times[1] - server.times[0] > 0.2, "not at once"


def test_retry_after_is_kept_to(server, tmp_path):
    def limited(question):
        return Answer(status=429, headers={"Retry-After": "2"}) if len(server.asked) == 1 else descriptions(question)

    server.reply = limited
    done = build(server, tmp_path / "b.json", "--model", "m", "--class", "nut", "--retries", 2)
    assert done.returncode == 0, done.stderr
    assert server.times[1] - server.times[0] >= 1.9


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(status=401), ["refuses the key (401)", "OPENAI_API_KEY"]),
        (Answer(status=403), ["refuses the key (403)"]),
        (Answer(status=404), ["'m'", "--model", "/v1"]),
    ],
)
def test_what_every_question_would_meet_ends_it_at_once(server, tmp_path, answer, words):
    server.reply = lambda question: answer
    classes = [part for i in range(9) for part in ("--class", f"thing {i}")]
    refused(build(server, tmp_path / "b.json", "--model", "m", "--parallel", 1, *classes), 1, *words)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(status=429), "answered 429"),
        (Answer(status=500), "answered 500"),
        (Answer(body=b"<html>no</html>"), "OpenAI-compatible"),
        (Answer(body=b"{}"), "OpenAI-compatible"),
        (Answer(text=""), "empty answer"),
        (Answer(text="I am sorry, I cannot."), "0 of 5 descriptions"),
        (Answer(drop=True), "cannot reach"),
    ],
)
def test_a_class_that_fails_does_not_lose_the_others(server, tmp_path, answer, words):
    server.reply = lambda question: answer if "bolt" in question.text else descriptions(question)
    output = tmp_path / "b.json"
    done = build(server, output, "--model", "m", "--class", "nut", "--class", "bolt", "--class", "pin")
    refused(done, 1, "1 questions failed", output)
    assert "failed: own/bolt: " in done.stderr and words in done.stderr
    assert set(entries(output)["own"]) == {"nut", "pin"}


def test_a_server_that_never_answers(server, tmp_path):
    hold = threading.Event()
    server.reply = lambda question: hold.wait(20) and Answer()
    started = time.monotonic()
    done = build(server, tmp_path / "b.json", "--model", "m", "--class", "nut", "--timeout", 0.5)
    hold.set()
    refused(done, 1, "1 questions failed")
    assert "did not answer within 0.5 s" in done.stderr
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_server_that_echoes_the_key_cannot_make_us_show_it(server, tmp_path, status):
    """Not in a message, not in a traceback, not in the file."""

    def echo(question):
        message = f"bad header {question.authorization} and {KEY}"
        return Answer(status=status, body=json.dumps({"error": {"message": message}}).encode())

    server.reply = echo
    done = build(server, tmp_path / "b.json", "--model", "m", "--class", "nut", "--debug")
    assert done.returncode == 1  # `run` has looked for the key
    assert KEY not in (tmp_path / "b.json").read_text()


def test_nobody_listens(tmp_path):
    class Nobody:
        url = "http://127.0.0.1:9/v1"

    done = build(Nobody, tmp_path / "b.json", "--model", "m", "--class", "nut")
    refused(done, 1, "questions failed")
    assert "cannot reach http://127.0.0.1:9/v1" in done.stderr


def test_a_broken_image_is_named(server, data, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data, root)
    victim = sorted((root / "bottle" / "test" / "scratch").iterdir())[0]
    victim.write_bytes(b"no image")
    done = build(server, tmp_path / "b.json", "--vision-model", "v", "--dataset", "mvtec", "--root", root)
    refused(done, 1, "1 questions failed")
    assert victim.name in done.stderr
    assert len(entries(tmp_path / "b.json")["mvtec"]["metal_nut"]["observed"]) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--class", "nut"], ["--model"]),
        (["--model", "m"], ["--class"]),
        (["--model", "m", "--dataset", "mvtec"], ["--root"]),
        (["--vision-model", "v", "--class", "nut"], ["--vision-model", "--dataset"]),
        (["--model", "m", "--class", "  "], ["--class is empty"]),
        (["--model", "m", "--class", "nut", "--endpoint", "ftp://x"], ["not an http(s) URL"]),
        (["--model", "m", "--class", "nut", "--endpoint", "http://[::1"], ["not a URL"]),
        (["--model", "m", "--class", "nut", "--endpoint", "https://me:pw@host/v1"], ["OPENAI_API_KEY"]),
        (["--model", "m", "--class", "nut", "--endpoint", "http://192.0.2.7/v1"], ["unencrypted", "--allow-http"]),
    ],
)
def test_bad_command_lines(server, tmp_path, arguments, words):
    done = build(server, tmp_path / "b.json", *arguments)
    refused(done, 2, *words)
    assert "me:pw" not in done.stderr and not (tmp_path / "b.json").exists()


def test_a_file_that_is_no_knowledge_base_is_not_overwritten(server, tmp_path):
    output = tmp_path / "precious.json"
    output.write_text('{"precious": true}')
    refused(build(server, output, "--model", "m", "--class", "nut"), 1, output)
    assert output.read_text() == '{"precious": true}' and server.asked == []


def test_no_key_is_no_hindrance_for_a_server_that_wants_none(server, tmp_path):
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "OPENAI_API_KEY"}
    done = build(server, tmp_path / "b.json", "--model", "m", "--class", "nut", env=environment)
    assert done.returncode == 0, done.stderr


def test_show_and_check():
    done = run("show", "bottle", "--json")
    assert len(json.loads(done.stdout)["mvtec/bottle"]["abnormal"]) == 5
    assert run("show", "--dataset", "dagm").stdout.count("textured surface") >= 10
    refused(started("show", "unicorn"), 1, "it knows", "bottle")
    refused(run("check", "/nowhere.json"), 1, "/nowhere.json")
    assert "export OPENAI_API_KEY" in run("build", "--help").stdout
