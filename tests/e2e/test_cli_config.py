"""`kanoclip-run --config line.toml`: two sources and many outputs from one file, and what it says of a bad one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from broker import Broker, Subscriber, wait_until
from http_receiver import receiver

from kanoclip.runtime.sinks.snapshots.reader import newest_snapshots, read_snapshot

from .helpers import environment, free_port, in_process

BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef0123456789abcdef"
FILE = """
[engine]
bundle = {bundle}
backend = "onnxruntime"

[run]
window = false

[[source]]
url = "test://?width=160&height=120&fps=10&defect=1"
name = "left"

[[source]]
url = {{ env = "RIGHT" }}
name = "right"
stall_timeout = 9

[[sink]]
type = "mqtt"
url = "mqtt://127.0.0.1:{broker}/line3"
user = "line"
password = {{ env = "BROKER_PASSWORD" }}
on = "frames"

[[sink]]
type = "webhook"
url = "http://127.0.0.1:{webhook}/hook"
secret = {{ file = "webhook.secret" }}
on = "frames"

[[sink]]
type = "snapshots"
path = "ring"
interval = 0
max_count = 5

[[sink]]
type = "jsonl"
path = "one.jsonl"

[[sink]]
type = "jsonl"
path = "two.jsonl"
max_bytes = "1M"

[decision]
threshold = 0.9

[class.object]
threshold = 0

[service]
health = "127.0.0.1:{health}"

[page]
serve = "127.0.0.1:{page}"
token = {{ file = "page.token" }}
"""

pytestmark = pytest.mark.timeout(240)


def start(*arguments, cwd, **more):
    return subprocess.Popen(
        [str(BIN / "kanoclip-run"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more), cwd=cwd,
    )  # fmt: skip


def run(*arguments, cwd, **more):
    process = start(*arguments, cwd=cwd, **more)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def answer(port, path, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers), timeout=10
    ) as a:
        return a.status


@pytest.mark.programs("mosquitto")
def test_everything_in_one_file(toy_bundle, program, tmp_path):
    etc, work = tmp_path / "etc", tmp_path / "work"
    etc.mkdir(), work.mkdir(), (tmp_path / "broker").mkdir()
    (etc / "page.token").write_text(TOKEN + "\n")
    (etc / "webhook.secret").write_text("signed with this\n")
    os.chmod(etc / "page.token", 0o600)
    broker = Broker(program("mosquitto"), tmp_path / "broker").start()
    watcher = Subscriber(broker.port)
    ports = {"health": free_port(), "page": free_port()}
    secrets = {"RIGHT": "test://?width=160&height=120&fps=10&defect=1&seed=2", "BROKER_PASSWORD": "s3cret"}
    with receiver(200) as to:
        config = etc / "line.toml"
        config.write_text(FILE.format(bundle=json.dumps(str(toy_bundle)), broker=broker.port, webhook=to.port, **ports))
        process = start("--config", config, cwd=work, **secrets)
        try:
            wait_until(lambda: process.poll() is not None or (len(watcher.records) >= 20 and len(to.frames) >= 20), 120)
            assert process.poll() is None, process.communicate()
            assert answer(ports["health"], "/healthz") == 200
            with pytest.raises(urllib.error.HTTPError, match="401"):
                answer(ports["page"], "/api/session")
            assert answer(ports["page"], "/api/session", TOKEN) == 200
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
            watcher.stop()
            broker.stop()
    assert process.returncode == 0, stderr
    assert "s3cret" not in stdout + stderr and TOKEN not in stdout + stderr
    assert f"page: http://127.0.0.1:{ports['page']}" in stdout
    for lines in (lines_of(work / "one.jsonl"), lines_of(work / "two.jsonl"), watcher.records):
        assert {line["stream"] for line in lines} == {"left", "right"}
        assert {line["threshold"] for line in lines} == {0}
    assert {headers.get("X-Kanoclip-Signature", "")[:7] for _, _, headers, _ in to.requests} == {"sha256="}
    names = newest_snapshots(work / "ring", 99)
    assert len(names) == 5 and read_snapshot(work / "ring", names[0]).record["is_anomalous"]
    assert sorted(path.name for path in etc.iterdir()) == ["line.toml", "page.token", "webhook.secret"]


def test_what_it_prints_can_be_given_to_it_again(toy_bundle, tmp_path):
    config = tmp_path / "line.toml"
    config.write_text('[[source]]\nurl = "test://?fps=30"\n[decision]\nthreshold = 0.5\n[run]\nquiet = true\n')
    given = ["--config", config, "--print-config", "--bundle", toy_bundle, "--threshold", "0.25", "--jsonl", "x.jsonl"]
    code, printed, stderr = run(*given, "--max-frames", 3, "--no-window", cwd=tmp_path)
    assert (code, stderr) == (0, "") and not (tmp_path / "x.jsonl").exists()
    again = tmp_path / "again.toml"
    again.write_text(printed)
    assert run("--config", again, "--print-config", cwd=tmp_path) == (0, printed, "")
    code, stdout, stderr = run("--config", again, cwd=tmp_path)
    assert (code, stdout, stderr) == (0, "", "")
    assert [line["threshold"] for line in lines_of(tmp_path / "x.jsonl")] == [0.25] * 3


def test_a_password_on_the_command_line_is_not_printed(toy_bundle, tmp_path):
    code, printed, stderr = run("--source", "rtsp://me:s3cret@h/x", "--print-config", cwd=tmp_path)
    assert code == 0 and "s3cret" not in printed + stderr and '{ env = "KANOCLIP_SOURCE_1" }' in printed


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("[run]\nquite = true", (), ["line.toml, line 2", "did you mean quiet?"]),
        ("[page]\ntoken = 's3cret'", (), ["line.toml, line 2", "plain text", "env ="]),
        ("[run]\nquiet = true", (), ["--source", "[[source]]"]),
        (
            "[[sink]]\ntype = 'jsonl'\npath = 'x'\n[[source]]\nurl = 'test://'",
            ("--snapshots", "x"),
            ["two sinks", "line 1"],
        ),
        (None, (), ["line.toml", "cannot be read"]),
    ],
)
def test_a_bad_file_is_one_line_and_wrong_usage(tmp_path, text, arguments, words):
    if text is not None:
        (tmp_path / "line.toml").write_text(text)
    done = in_process("kanoclip-run", "--config", "line.toml", *arguments, cwd=tmp_path, env=environment())
    code, stdout, stderr = done.returncode, done.stdout, done.stderr
    assert (code, stdout) == (2, "") and len(stderr.splitlines()) == 1 and stderr.startswith("error: ")
    assert "s3cret" not in stderr
    for word in words:
        assert word in stderr


def test_errors_are_json_where_the_file_says_so(tmp_path):
    (tmp_path / "line.toml").write_text("[service]\nlog_format = 'json'\n[run]\nquite = true")
    code, _, stderr = run("--config", "line.toml", cwd=tmp_path)
    assert code == 2 and json.loads(stderr)["exit_code"] == 2 and "line 4" in json.loads(stderr)["message"]


def test_named_sources_replace_those_of_the_file_which_is_said(toy_bundle, tmp_path):
    (tmp_path / "line.toml").write_text("[[source]]\nurl = 'missing'\n[[sink]]\ntype = 'jsonl'\npath = 'x.jsonl'")
    given = ["--bundle", toy_bundle, "--backend", "onnxruntime", "--source", "test://?fps=30", "--max-frames", 2]
    code, _, stderr = run("--config", "line.toml", *given, "--no-window", cwd=tmp_path)
    assert code == 0 and "--camera and --source replace the [[source]] of line.toml, line 1" in stderr
    assert len(lines_of(tmp_path / "x.jsonl")) == 2
