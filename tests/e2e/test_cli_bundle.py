"""`kanoclip-bundle` as a user starts it, beside a `kanoclip-run` that goes on scoring whatever the store does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .helpers import environment, in_process

BIN = Path(sys.executable).parent
PATTERN = "test://?width=96&height=64&fps=20"

pytestmark = pytest.mark.timeout(300)


def trusting_nobody(**more):
    ours = environment(COLUMNS="250")
    ours.pop("KANOCLIP_TRUST", None)
    return ours | more


def bundle(*arguments, cwd, **more):
    """What pulls and verifies is started as a user starts it; what makes a store for it is run in this process."""
    if arguments[0] in ("keygen", "push"):
        return in_process("kanoclip-bundle", *arguments, cwd=cwd, env=trusting_nobody(**more))
    return subprocess.run(
        [str(BIN / "kanoclip-bundle"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=trusting_nobody(**more),
        cwd=cwd,
        timeout=120,
    )


def does(*arguments, cwd, **more):
    done = bundle(*arguments, cwd=cwd, **more)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def fails(done, code, *parts):
    """One line on standard error that names everything in `parts`; steps before it may have been told."""
    assert done.returncode == code, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("fetching ", "kanoclip-doctor"))]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert str(part) in lines[0], lines[0]
    assert done.stdout == ""


def toy(make_toy_bundle, folder, threshold, **changes):
    """A toy bundle with samples, told apart by its threshold."""
    make_toy_bundle(folder, samples=2, **changes)
    value = json.loads((folder / "manifest.json").read_text())
    value["thresholds"]["image"] = threshold
    (folder / "manifest.json").write_text(json.dumps(value))
    return folder


class Runs:
    """kanoclip-run on a box's current bundle."""

    def __init__(self, folder):
        self._lines = folder / "frames.jsonl"
        self._lines.unlink(missing_ok=True)
        options = ["--bundle", "box/current.kanoclip", "--backend", "onnxruntime", "--device", "cpu", "--quiet"]
        command = [BIN / "kanoclip-run", "--source", PATTERN, "--no-window", "--jsonl", self._lines, *options]
        self.process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=trusting_nobody(), stderr=subprocess.PIPE, text=True
        )

    def rows(self):
        text = self._lines.read_text() if self._lines.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def goes_on(self, threshold, more=3):
        """New frames are scored, by this threshold."""
        before = len(self.rows())
        deadline = time.monotonic() + 60
        while len(self.rows()) < before + more:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert self.rows()[-1]["threshold"] == threshold

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, said


def test_whatever_the_store_does_the_old_one_keeps_running(tmp_path, make_toy_bundle):
    good = toy(make_toy_bundle, tmp_path / "a.kanoclip", 0.4)
    does("keygen", "line", cwd=tmp_path)
    does("push", good, "store", "--tag", "line3", "--key", "line.key", cwd=tmp_path)
    pull = ["pull", "./store:line3", "--trust", "line.pub", "--install", "box", "--backend", "onnxruntime"]
    assert "box/current.kanoclip is sha256:" in does(*pull, cwd=tmp_path)
    run = Runs(tmp_path)
    try:
        run.goes_on(0.4)
        newer = toy(make_toy_bundle, tmp_path / "b.kanoclip", 0.6, size=48)

        # Unsigned.
        assert "warning: it is not signed" in bundle("push", newer, "store", "--tag", "line3", cwd=tmp_path).stderr
        fails(bundle(*pull, cwd=tmp_path), 1, "store: line3 is refused: nobody signed it")
        run.goes_on(0.4)

        # Signed by somebody else.
        does("keygen", "stranger", cwd=tmp_path)
        does("push", newer, "store", "--tag", "line3", "--key", "stranger.key", cwd=tmp_path)
        fails(bundle(*pull, cwd=tmp_path), 1, "which --trust does not name")

        # Tampered with, and cut short.
        does("push", newer, "store", "--tag", "line3", "--key", "line.key", cwd=tmp_path)
        graph = json.loads((newer / "manifest.json").read_text())["files"]["model.onnx"]["sha256"]
        blob = tmp_path / "store" / "blobs" / "sha256" / graph
        content = blob.read_bytes()
        blob.write_bytes(content[:-1] + b"!")
        fails(bundle(*pull, cwd=tmp_path), 1, "toy sha256:", "model.onnx was damaged or changed")
        run.goes_on(0.4)
        blob.write_bytes(content[:100])
        fails(bundle(*pull, cwd=tmp_path), 1, f"model.onnx is truncated, 100 of {len(content)} bytes")
        blob.write_bytes(content)
        run.goes_on(0.4)

        # Whole and signed, but no engine of this machine runs it.
        broken = toy(make_toy_bundle, tmp_path / "c.kanoclip", 0.7, bf16=True)
        does("push", broken, "store", "--tag", "line3", "--key", "line.key", cwd=tmp_path)
        fails(bundle(*pull, cwd=tmp_path), 1, "fails kanoclip-doctor here", "stays")
        fails(bundle(*pull, cwd=tmp_path), 1, "is not taken: failed kanoclip-doctor", "--again")
        run.goes_on(0.4)
        assert len(list((tmp_path / "box" / "versions").iterdir())) == 1

        # A good one: the run that is under way keeps what it has, the next one takes the new one.
        does("push", newer, "store", "--tag", "line3", "--key", "line.key", cwd=tmp_path)
        told = json.loads(does(*pull, "--json", cwd=tmp_path))
        assert told["changed"] is True and told["signed_by"].startswith("sha256:")
        run.goes_on(0.4)
        run.process.send_signal(signal.SIGHUP)
        run.goes_on(0.4)
    finally:
        run.end()
    run = Runs(tmp_path)
    try:
        run.goes_on(0.6)
    finally:
        run.end()
    verified = does("verify", "box/current.kanoclip", "--trust", "line.pub", cwd=tmp_path)
    assert told["address"] in verified and "signed by line.pub" in verified
    does("rollback", "box", cwd=tmp_path)
    fails(bundle(*pull, cwd=tmp_path), 1, "rolled back by hand")
    states = [row["state"] for row in json.loads(does("list", "box", "--json", cwd=tmp_path))]
    assert states == ["current", "refused", "refused"]


def test_a_service_that_does_not_start_with_the_new_one(tmp_path, make_toy_bundle):
    """--then starts the run itself: the new bundle lacks the class that this line looks for."""
    good = toy(make_toy_bundle, tmp_path / "a.kanoclip", 0.4, classes=("screw", "nut"))
    newer = toy(make_toy_bundle, tmp_path / "b.kanoclip", 0.6, classes=("bolt", "nut"))
    does("keygen", "line", cwd=tmp_path)
    options = f"--source '{PATTERN}' --class screw --max-frames 1 --quiet --no-window"
    start = f"{shlex.quote(str(BIN / 'kanoclip-run'))} --bundle box/current.kanoclip --device cpu {options}"
    pull = ["pull", "./store:line3", "--install", "box", "--backend", "onnxruntime", "--then", start]
    trust = {"KANOCLIP_TRUST": "line.pub"}
    does("push", good, "store", "--tag", "line3", "--key", "line.key", cwd=tmp_path)
    does(*pull, cwd=tmp_path, **trust)
    before = os.readlink(tmp_path / "box" / "current.kanoclip")
    does("push", newer, "store", "--tag", "line3", "--key", "line.key", cwd=tmp_path)
    done = bundle(*pull, cwd=tmp_path, **trust)
    assert done.returncode == 1 and "does not start here, back to sha256:" in done.stderr.splitlines()[-1]
    assert "'screw' is not in this bundle, which knows: bolt, nut" in done.stderr, "what the service said"
    assert os.readlink(tmp_path / "box" / "current.kanoclip") == before


def test_a_copy_to_work_with(tmp_path, make_toy_bundle):
    good = toy(make_toy_bundle, tmp_path / "a.kanoclip", 0.4)
    pushed = json.loads(does("push", good, f"file://{tmp_path}/store", "--json", cwd=tmp_path))
    address = pushed["address"]
    listed = json.loads(does("list", "store", "--json", cwd=tmp_path))
    assert [(row["tag"], row["address"], row["signed"]) for row in listed] == [("latest", address, False)]
    does("pull", f"./store@{address}", "--unsigned", "--output", "b.kanoclip", cwd=tmp_path)
    assert (tmp_path / "b.kanoclip" / "manifest.json").read_bytes() == (good / "manifest.json").read_bytes()
    (tmp_path / "b.kanoclip" / "note.txt").write_text("ours to write to")
    assert address in does("verify", "b.kanoclip", cwd=tmp_path)
    fails(bundle("pull", "./store", "--unsigned", "--output", "b.kanoclip", cwd=tmp_path), 1, "is there already")
    does("keygen", "line", cwd=tmp_path)
    fails(bundle("verify", "b.kanoclip", "--trust", "line.pub", cwd=tmp_path), 1, "has no signature.json")
    shutil.rmtree(tmp_path / "store")
    fails(bundle("list", "store", cwd=tmp_path), 1, "no store of bundles")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pull", "./store"], 2, "--output NAME.kanoclip or --install FOLDER"),
        (["pull", "./store", "--output", "x"], 2, "--trust FILE.pub"),
        (
            ["pull", "./store", "--output", "x", "--unsigned", "--then", "true"],
            2,
            "--then, --again and --older go with",
        ),
        (["pull", "./store", "--install", "x", "--unsigned", "--then", "'"], 2, "no command line"),
        (["pull", "./store:a b", "--output", "x", "--unsigned"], 1, "'a b' is no tag"),
        (["pull", "./store", "--output", "x", "--trust", "nowhere.pub"], 1, "nowhere.pub cannot be read"),
        (["push", "nowhere.kanoclip", "store"], 1, "no bundle nowhere.kanoclip"),
        (["push", "nowhere.kanoclip", "store", "--tag", "/"], 1, "'/' is no tag"),
        (["rollback", "."], 1, "is no folder that kanoclip-bundle pull --install filled"),
        (["pull", "oci://127.0.0.1:1/x", "--output", "x", "--unsigned"], 1, "oci://127.0.0.1:1/x does not answer"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, arguments, code, said):
    fails(in_process("kanoclip-bundle", *arguments, cwd=tmp_path, env=trusting_nobody()), code, said)
