"""The command never shows a camera's password, wherever in the address it stands, and says how to escape it."""

from __future__ import annotations

import json
import threading
import time

import pytest

from kanoclip.runtime.cli.main import invoke
from kanoclip.runtime.sources import open_stream

CH1 = "rtsp://admin:Se{}cret1@127.0.0.1:9/ch1"


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("mark", ["#", "/", "?"])
def test_an_unescaped_delimiter(toy_bundle, capfd, mark, log_format):
    code = invoke("kanoclip-run", "run", arguments(toy_bundle, CH1.format(mark), log_format))
    out, err = capfd.readouterr()
    assert code == 1
    assert "cret1" not in out + err and "admin" not in out + err
    assert "rtsp://***@127.0.0.1:9/ch1: " in err
    assert "%23 %2F %3F" in err
    if log_format == "json":
        assert all(json.loads(line) for line in err.splitlines())


@pytest.mark.parametrize("debug", [[], ["--debug"]])
@pytest.mark.parametrize(
    "url",
    [
        "rtsp://127.0.0.1:9/user=admin&password=Secret1&channel=1",
        "rtsp://127.0.0.1:9/user=admin_password=Secret1_channel=1_stream=0.sdp",
        "rtsp://127.0.0.1:9/live;password=Secret1",
        "rtsp://127.0.0.1:9/live?psw=Secret1",
        "http://127.0.0.1:9/cgi?p=Secret1",
        "http://127.0.0.1:9/%3Fpassword%3DSecret1",
        "rtsp://admin:Secret1@[127.0.0.1/ch1",
        "rtsp://admin:Secret1 with blanks@127.0.0.1:9/ch1",
        "rtsp:/admin:Secret1@127.0.0.1:9/ch1",
        "rtspx://admin:Secret1@127.0.0.1:9/ch1",
        "gst://nosuchelement location=rtsp://admin:Secret1@cam/x user-pw=Secret1",
        "gst://nosuchelement user-pw='Secret1",
    ],
)
def test_other_forms(toy_bundle, capfd, url, debug):
    code = invoke("kanoclip-run", "run", [*arguments(toy_bundle, url, "text"), *debug])
    out, err = capfd.readouterr()
    assert code == 1
    assert "error: " in err
    assert "Secret1" not in out + err


@pytest.mark.parametrize(
    ("flag", "url"),
    [
        ("--mqtt", "mqtt://me:Se/cret1@127.0.0.1:9/line"),
        ("--mqtt", "mqtt://me:Secret1@127.0.0.1:port/line"),
        ("--webhook", "http://me:Secret1@127.0.0.1:port/line"),
        ("--webhook", "ftp://me:Secret1@127.0.0.1:9/Secret1"),
        ("--backend", "triton://me:Secret1@127.0.0.1:port/toy"),
        ("--backend", "triton://me:Se/cret1@127.0.0.1:1/toy"),
        ("--health", "me:Secret1@127.0.0.1:http"),
    ],
)
def test_addresses_of_outputs_and_engines(toy_bundle, capfd, flag, url):
    code = invoke("kanoclip-run", "run", [*arguments(toy_bundle, "test://?fps=5", "text"), flag, url])
    out, err = capfd.readouterr()
    assert code in (1, 2)
    assert "ecret1" not in out + err


@pytest.mark.parametrize(
    "line",
    [
        "score --output x.parquet --source sftp://me:Se#cret1@127.0.0.1:9/x",
        "score --output x.parquet --source http://127.0.0.1:9/x.png?sig=Secret1",
        "bundle list ftp://me:Se#cret1@127.0.0.1:9/x",
        "bundle list hf://me:Secret1/x",
        "export --from-hub me:Secret1@x/y/z@r",
        "knowledge build --model m --class x --output kb.json --endpoint http://me:Se#cret1@127.0.0.1:9/v1",
        "knowledge build --model m --class x --output kb.json --endpoint http://127.0.0.1:9/v1?api-key=Secret1",
        "data check rtsp://me:Se#cret1@127.0.0.1:9/x",
    ],
)
def test_addresses_of_other_commands(tmp_path, monkeypatch, capfd, line):
    monkeypatch.chdir(tmp_path)
    name, *given = line.split()
    assert invoke(f"kanoclip-{name}", name, given) in (1, 2)
    out, err = capfd.readouterr()
    assert "cret1" not in out + err and "'Se'" not in out + err and "unexpected" not in err
    assert not list(tmp_path.iterdir())


def arguments(bundle, url, log_format):
    given = ["--bundle", str(bundle), "--no-window", "--source", url, "--log-format", log_format]
    return [*given, "--backend", "onnxruntime"]


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:{}@127.0.0.1:9/ch1",
        "rtsp://127.0.0.1:9/user=admin&password={}&channel=1",
        "rtsp://127.0.0.1:9/live;password={}",
        "http://127.0.0.1:9/video?token={}",
        "http://127.0.0.1:9/%3Fpassword%3D{}",
    ],
)
@pytest.mark.parametrize("secret", ["Secret1", "Secret1%23x", "Sec+ret1", "Sec:ret1"])
def test_neither_the_name_nor_the_reason_of_an_outage_holds_it(url, secret, caplog):
    """Lines, metrics, snapshots, the page and /readyz have nothing else to call a source by."""
    source = open_stream(url.format(secret), wait=True)
    reader = threading.Thread(target=lambda: list(source.frames()))
    reader.start()
    try:
        deadline = time.monotonic() + 60
        while source.health().reason is None and time.monotonic() < deadline:
            time.sleep(0.01)
        shown = f"{source.name} {source.health()} {caplog.text}"
    finally:
        source.interrupt()
        reader.join()
        source.close()
    assert "127.0.0.1:9" in source.name and "nobody listens" in shown
    assert secret not in shown and "ret1" not in shown
