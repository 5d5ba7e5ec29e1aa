"""`kanoclip-run` as a user starts it: the installed command in a process of its own, on real photographs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.system.files.own import MARK

from .helpers import count_frames, environment, in_process

EXAMPLES = Path(__file__).parents[2] / "examples" / "hazelnut_toy"
GOOD = EXAMPLES / "test" / "good"
BIN = Path(sys.executable).parent
CPU = ("--backend", "onnxruntime", "--device", "cpu")  # `auto` would try every engine first

pytestmark = pytest.mark.timeout(180)


def kanoclip_run(*arguments, cwd=None, program="kanoclip-run"):
    return subprocess.run(
        [str(BIN / program), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=cwd,
        timeout=120,
    )


def refused(*arguments, cwd=None):
    """As `kanoclip_run`, in this process: for what it says and leaves of a command line or a file that is wrong."""
    return in_process("kanoclip-run", *arguments, cwd=cwd, env=environment())


def fails(done, code, *parts):
    """One line on standard error that names everything in `parts`; no traceback."""
    assert done.returncode == code, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert str(part) in lines[0]
    assert "Traceback" not in done.stdout + done.stderr


def lines_of(path):
    def refuse(constant):
        raise AssertionError(constant)

    return [json.loads(line, parse_constant=refuse) for line in Path(path).read_text().splitlines()]


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file() and p.name != MARK)


def write_video(path, count, size=(64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, size)
    assert writer.isOpened()
    for index in range(count):
        writer.write(np.full((size[1], size[0], 3), index % 128 * 2, np.uint8))
    writer.release()
    return path


@pytest.fixture
def photographs(tmp_path):
    """Four real photographs in two folders."""
    folder = tmp_path / "in"
    for name in ("good/04.jpg", "good/13.jpg", "colour/00.jpg", "colour/09.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / "test" / name, folder / name)
    return folder


def test_images_lines_table_and_summary(toy_bundle, photographs, tmp_path):
    out = tmp_path / "out"
    started = datetime.now(timezone.utc)
    done = kanoclip_run(
        "--bundle", toy_bundle, "--source", photographs, "--output", out, "--jsonl", out / "frames.jsonl", "--timings"
    )
    assert done.returncode == 0, done.stderr
    names = ["colour/00.jpg", "colour/09.jpg", "good/04.jpg", "good/13.jpg"]
    assert files(out) == sorted([*names, "frames.jsonl"])
    rows = lines_of(out / "frames.jsonl")
    assert [row["frame"] for row in rows] == [0, 1, 2, 3]
    for row, name in zip(rows, names, strict=True):
        assert list(row) == [
            "frame", "time", "source", "class", "score", "threshold", "is_anomalous", "alarm", "regions",
            "timings_ms",
        ]  # fmt: skip
        assert row["source"] == str(photographs / name)
        assert started.timestamp() - 1 <= datetime.fromisoformat(row["time"]).timestamp() <= time.time()
        assert row["time"].endswith("+00:00")
        assert 0 <= row["score"] <= 1 and 0 <= row["threshold"] <= 1
        assert row["is_anomalous"] is (row["score"] >= row["threshold"])
        assert isinstance(row["class"], str) and row["class"]
        assert list(row["timings_ms"]) == ["capture", "resize", "inference", "decide"]
        assert all(isinstance(ms, float) and 0 <= ms < 60_000 for ms in row["timings_ms"].values())
        for region in row["regions"]:
            assert list(region) == ["x", "y", "width", "height", "score", "area"]
            assert region["x"] >= 0 and region["x"] + region["width"] <= 512
            assert region["y"] >= 0 and region["y"] + region["height"] <= 512
            assert 1 <= region["area"] <= region["width"] * region["height"]
            assert 0 <= region["score"] <= row["score"] + 1e-6  # the toy's score is the map's largest value
        drawn = cv2.imread(str(out / name))
        assert drawn.shape[1] == 512 and drawn.shape[0] > 512
        assert name in done.stdout and f"{row['score']:.4f}" in done.stdout
    assert any(row["regions"] for row in rows)
    assert re.search(r"4 frames in .* fps\): \d anomalous, 0 skipped, 0 dropped", done.stdout)
    for stage in ("capture", "resize", "inference", "decide", "images", "jsonl"):
        assert re.search(rf"{stage} .*\d\.\d\d", done.stdout)
    assert re.search(r"outside inference: \d+\.\d\d ms a frame", done.stdout)


def test_the_score_of_the_toy_bundle_is_the_brightest_spot(toy_bundle, tmp_path):
    dark, bright = np.full((64, 64, 3), 51, np.uint8), np.full((64, 64, 3), 51, np.uint8)
    bright[16:32, 32:48] = 255
    assert cv2.imwrite(str(tmp_path / "dark.png"), dark) and cv2.imwrite(str(tmp_path / "bright.png"), bright)
    done = kanoclip_run(
        "--bundle", toy_bundle, "--source", tmp_path, "--jsonl", "-", "--threshold", "0.6", "--pixel-threshold", "0.9"
    )  # fmt: skip
    assert done.returncode == 0
    one, two = map(json.loads, done.stdout.splitlines())
    assert one["score"] == pytest.approx(1.0, abs=0.01) and two["score"] == pytest.approx(0.2, abs=0.01)
    assert (one["is_anomalous"], two["is_anomalous"], one["threshold"]) == (True, False, 0.6)
    (region,) = one["regions"]
    assert abs(region["x"] - 32) <= 2 and abs(region["y"] - 16) <= 2
    assert abs(region["width"] - 16) <= 4 and abs(region["height"] - 16) <= 4
    assert two["regions"] == []


def test_an_untrained_bundle_warns_even_when_quiet(toy_bundle, photographs):
    manifest = json.loads((Path(toy_bundle) / "manifest.json").read_text())
    done = kanoclip_run("--bundle", toy_bundle, "--source", photographs / "good", "--quiet")
    assert done.returncode == 0
    assert done.stdout == ""
    warned = "is untrained (weights seeded:" in done.stderr
    assert warned is (not manifest["model"]["trained"])


@pytest.mark.parametrize("flag", [("--jsonl", "-"), ("--json",)])
def test_standard_output_stays_pure(toy_bundle, photographs, flag):
    done = kanoclip_run("--bundle", toy_bundle, "--source", photographs, *flag)
    assert done.returncode == 0
    values = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(values) == (1 if flag == ("--json",) else 4)
    if flag == ("--json",):
        (summary,) = values
        assert (summary["frames"], summary["skipped"], summary["dropped"], summary["interrupted"]) == (4, 0, 0, False)
        assert summary["stages"]["inference"]["count"] == 4
        others = sum(s["mean"] for n, s in summary["stages"].items() if n != "inference")
        assert summary["outside_inference_ms"] == pytest.approx(others)
    assert "4 frames in" in done.stderr


def test_broken_images_among_good_ones(toy_bundle, photographs, tmp_path):
    whole = (photographs / "good" / "04.jpg").read_bytes()
    (photographs / "good" / "05.jpg").write_bytes(b"no image")
    (photographs / "good" / "06.jpg").write_bytes(b"")
    (photographs / "good" / "07.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    done = kanoclip_run("--bundle", toy_bundle, "--source", photographs, "--output", out, "--jsonl", out / "x.jsonl")
    fails(done, 1, "3 of 7 images could not be read and were skipped")
    assert "4 frames in" in done.stdout and "3 skipped" in done.stdout
    rows = lines_of(out / "x.jsonl")
    assert [("error" in row, row["frame"]) for row in rows] == [
        (False, 0), (False, 1), (False, 2), (True, 3), (True, 4), (True, 5), (False, 6)
    ]  # fmt: skip
    assert [set(row) for row in rows if "error" in row] == [{"frame", "source", "error"}] * 3
    assert len(files(out)) == 5
    assert "skipped" in next(line for line in done.stdout.splitlines() if "06.jpg" in line)


def test_a_video_in_and_out(toy_bundle, tmp_path):
    video, out = write_video(tmp_path / "in.mp4", 40), tmp_path / "out.mp4"
    done = kanoclip_run("--bundle", toy_bundle, "--source", video, "--output", out, "--jsonl", tmp_path / "x.jsonl")
    assert done.returncode == 0, done.stderr
    assert count_frames(out) == 40
    rows = lines_of(tmp_path / "x.jsonl")
    assert [row["frame"] for row in rows] == list(range(40))
    assert [row["score"] for row in rows] == pytest.approx([i * 2 / 255 for i in range(40)], abs=0.03)
    assert files(tmp_path) == ["in.mp4", "out.mp4", "x.jsonl"]


def test_max_frames_and_glob(toy_bundle, tmp_path):
    done = kanoclip_run(
        "--bundle", toy_bundle, "--source", GOOD / "*.jpg", "--max-frames", 3, "--jsonl", "-", "--quiet"
    )
    assert done.returncode == 0
    assert [Path(json.loads(line)["source"]).name for line in done.stdout.splitlines()] == [
        "04.jpg",
        "05.jpg",
        "13.jpg",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_long_run_with_complete_outputs(toy_bundle, tmp_path, number):
    video, out, jsonl = write_video(tmp_path / "in.mp4", 20_000), tmp_path / "out.mp4", tmp_path / "x.jsonl"
    command = ["--bundle", toy_bundle, "--source", video, "--output", out, "--jsonl", jsonl]
    running = subprocess.Popen(
        [str(BIN / "kanoclip-run"), *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (jsonl.exists() and jsonl.stat().st_size > 2000):
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == 0, stderr
    rows = lines_of(jsonl)
    assert 0 < len(rows) < 20_000
    assert [row["frame"] for row in rows] == list(range(len(rows)))
    assert count_frames(out) == len(rows)
    assert f"{len(rows)} frames in" in stdout and "stopped early" in stdout
    assert files(tmp_path) == ["in.mp4", "out.mp4", "x.jsonl"]


def test_a_reader_that_leaves_ends_the_run_without_a_fuss(toy_bundle, tmp_path):
    video = write_video(tmp_path / "in.mp4", 5000)
    running = subprocess.Popen(
        [str(BIN / "kanoclip-run"), "--bundle", str(toy_bundle), "--source", str(video), "--jsonl", "-", "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert json.loads(running.stdout.readline())["frame"] == 0
    running.stdout.close()
    errors = running.stderr.read()
    assert running.wait(timeout=60) == 0
    assert [line for line in errors.splitlines() if not line.startswith("warning:")] == []


class Camera(BaseHTTPRequestHandler):
    """An MJPEG camera that goes on until the client hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        _, data = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))
        try:
            for _ in range(3000):
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
                self.wfile.write(data.tobytes() + b"\r\n")
                time.sleep(0.005)
        except OSError:
            return

    def log_message(self, *_):
        """Keeps the test's output clean."""


def test_a_network_camera_with_credentials(toy_bundle, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://me:s3cret@127.0.0.1:{server.server_port}/video"
        out = tmp_path / "out"
        done = kanoclip_run(
            "--bundle", toy_bundle, "--source", url, "--max-frames", 20, "--output", out,
            "--jsonl", tmp_path / "x.jsonl",
        )  # fmt: skip
        server.shutdown()
    assert done.returncode == 0, done.stderr
    rows = lines_of(tmp_path / "x.jsonl")
    assert 15 <= len(rows) <= 20  # live: a slow sink may drop
    assert {row["source"] for row in rows} == {f"http://***@127.0.0.1:{server.server_port}/video"}
    assert all(re.fullmatch(r"frame_\d{8}\.jpg", name) for name in files(out))
    everything = done.stdout + done.stderr + (tmp_path / "x.jsonl").read_text()
    assert "s3cret" not in everything
    assert "20 frames in" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ((), 2, ["--camera", "--source", "--help"]),
        (("--source", GOOD, "--source", GOOD), 2, ["--source", GOOD, "twice"]),
        (("--source", GOOD, "--token-file", "x"), 2, ["--token-file", "--serve"]),
        (("--camera", "-1"), 2, ["--camera", "-1"]),
        (("--camera", "front"), 2, ["--camera", "front"]),
        (("--source", GOOD, "--threshold", "1.5"), 2, ["--threshold", "1.5"]),
        (("--source", GOOD, "--threshold", "nan"), 2, ["--threshold", "is no number"]),
        (("--source", GOOD, "--policy", "hurry"), 2, ["--policy", "hurry", "drop-oldest"]),
        (("--source", GOOD, "--sauce"), 2, ["--sauce"]),
        (("--source", GOOD, "--class", "zebra"), 2, ["--class", "zebra"]),
        (("--source", GOOD, "--json", "--jsonl", "-"), 2, ["--json", "--jsonl"]),
        (("--source", GOOD, "--output", "x.avi"), 2, ["--output", "x.avi", ".mp4"]),
        (("--source", GOOD, "--max-frames", "0"), 2, ["--max-frames"]),
        (("--source", "missing/folder"), 1, ["missing/folder", "no such file"]),
        (("--source", "none/*.png"), 1, ["none/*.png", "no image matches"]),
        (("--source", "http://me:s3cret@127.0.0.1:9/x"), 1, ["http://***@127.0.0.1:9/x", "nobody listens"]),
        (("--source", GOOD, "--output", "/proc/out"), 1, ["/proc/out", "cannot be written"]),
        (("--source", GOOD, "--jsonl", "/proc/x.jsonl"), 1, ["/proc/x.jsonl", "cannot be written"]),
        (("--source", GOOD, "--output", GOOD), 1, [GOOD, "overwrite"]),
        (("--source", GOOD, "--window"), 1, ["window", "no display"]),
        (("--source", GOOD, "--backend", "abacus"), 2, ["--backend", "abacus"]),
    ],
)  # fmt: skip
def test_wrong_usage_and_failures_are_one_line(toy_bundle, tmp_path, arguments, code, parts):
    done = refused("--bundle", toy_bundle, *arguments, cwd=tmp_path)
    fails(done, code, *parts)
    assert files(tmp_path) == [] or tmp_path in Path(toy_bundle).parents
    assert "s3cret" not in done.stdout + done.stderr


def test_a_camera_that_is_not_there(toy_bundle, tmp_path):
    """In a process of its own: OpenCV would say so too, were it not silenced before it is imported."""
    done = kanoclip_run("--bundle", toy_bundle, "--camera", "97", cwd=tmp_path)
    fails(done, 1, "camera 97", "cannot be opened")
    assert files(tmp_path) == []


@pytest.mark.parametrize("kind", ["empty folder", "text file", "cut video", "all broken"])
def test_sources_that_hold_nothing(toy_bundle, tmp_path, kind):
    source = tmp_path / "source"
    if kind == "empty folder":
        source.mkdir()
        expected = ["no images in this folder"]
    elif kind == "text file":
        source = tmp_path / "notes.txt"
        source.write_text("x")
        expected = ["neither an image nor a video"]
    elif kind == "cut video":
        source = tmp_path / "cut.mp4"
        whole = write_video(tmp_path / "whole.mp4", 20).read_bytes()
        source.write_bytes(whole[: len(whole) // 2])
        expected = ["not a video"]
    else:
        source.mkdir()
        (source / "1.jpg").write_bytes(b"x")
        expected = ["1 of 1 images"]
    start = kanoclip_run if kind == "cut video" else refused  # OpenCV is silenced before it is imported
    done = start("--bundle", toy_bundle, "--source", source, "--output", tmp_path / "out.mp4")
    fails(done, 1, *expected, *([] if kind == "all broken" else [source]))
    assert not (tmp_path / "out.mp4").exists()
    assert not list(tmp_path.glob(".*partial*"))


def copy_bundle(toy_bundle, tmp_path):
    return Path(shutil.copytree(toy_bundle, tmp_path / "copy.kanoclip"))


@pytest.mark.parametrize("kind", ["flipped byte", "missing file", "climbing path", "unknown schema", "no bundle"])
def test_damaged_bundles(toy_bundle, tmp_path, kind):
    bundle = copy_bundle(toy_bundle, tmp_path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    expected = "model.onnx"
    if kind == "flipped byte":
        data = bytearray((bundle / "model.onnx").read_bytes())
        data[len(data) // 2] ^= 1
        (bundle / "model.onnx").write_bytes(data)
    elif kind == "missing file":
        (bundle / "model.onnx").unlink()
    elif kind == "climbing path":
        expected = "../"
        text = json.dumps(manifest).replace('"model.onnx"', '"../model.onnx"')
        (bundle / "manifest.json").write_text(text)
    elif kind == "unknown schema":
        expected = "schema"
        key = next(k for k in manifest if "schema" in k)
        manifest[key] = 999
        (bundle / "manifest.json").write_text(json.dumps(manifest))
    else:
        bundle = tmp_path / "nowhere.kanoclip"
        expected = "nowhere.kanoclip"
    done = refused("--bundle", bundle, "--source", GOOD, "--output", tmp_path / "out")
    fails(done, 1, expected)
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(toy_bundle):
    done = kanoclip_run("--bundle", toy_bundle, "--source", "missing", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "SourceError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: missing: no such file")


def test_help_is_quick_and_lean():
    for program, arguments in (("kanoclip", ["--help"]), ("kanoclip", []), ("kanoclip-run", ["--help"])):
        done = kanoclip_run(*arguments, program=program)
        assert done.returncode == 0 and done.stderr == ""
        assert "Usage: " + program in done.stdout
    assert "kanoclip-run --camera 0" in done.stdout
    assert all(flag in done.stdout for flag in ("--debug", "--threshold", "--policy", "--jsonl"))
    listed = kanoclip_run("--help", program="kanoclip").stdout
    assert re.search(r"run +Score", listed) and re.search(r"export +Turn", listed)
    check = (
        "import sys; from kanoclip.runtime.cli.main import invoke; invoke('kanoclip', None, ['--help'])\n"
        "assert not {'torch', 'onnx', 'open_clip', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def test_the_group_runs_and_reports_like_the_single_commands(toy_bundle):
    done = kanoclip_run("run", "--bundle", toy_bundle, "--source", GOOD, "--quiet", program="kanoclip")
    assert (done.returncode, done.stdout) == (0, "")
    fails(in_process("kanoclip", "fly"), 2, "fly", "kanoclip --help")
    version = kanoclip_run("--version", program="kanoclip")
    assert re.fullmatch(r"kanoclip, version \d+\.\d+\.\d+\nengines: .*\n", version.stdout)


def test_a_missing_extra_is_named():
    script = (
        "import sys; sys.modules['torch'] = None\n"  # what an environment without torch looks like to `import`
        "from kanoclip.runtime.cli import main\n"
        "sys.exit(main.invoke('kanoclip-export', 'export', ['--fp16']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    fails(done, 1, "torch is not installed", "pip install 'kanoclip-edge[export,cpu]'")


def test_an_unexpected_error_is_one_line_that_tells_how_to_see_more():
    script = (
        "import math, sys; from kanoclip.runtime.cli import commands, main\n"
        "commands.RUNTIME = {'run': lambda: math.nothing}\n"
        "sys.exit(main.invoke('kanoclip-run', 'run', sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    fails(done, 1, "unexpected AttributeError", "--debug")
    done = subprocess.run([sys.executable, "-c", script, "--debug"], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_large_jpegs_at_a_smaller_scale(tmp_path):
    images = tmp_path / "pictures"
    images.mkdir()
    photo = cv2.imread(str(next(GOOD.glob("*.jpg"))))
    cv2.imwrite(str(images / "a.jpg"), cv2.resize(photo, (2048, 1024), interpolation=cv2.INTER_CUBIC))
    runs = []
    for more in ([], ["--reduced-jpeg"]):
        lines = tmp_path / f"{len(more)}.jsonl"
        done = kanoclip_run("--source", images, "--jsonl", lines, "--pixel-threshold", 0.2, "--no-table", *CPU, *more)
        assert done.returncode == 0, done.stderr
        runs.append(lines_of(lines)[0])
    full, reduced = runs
    assert reduced["score"] == pytest.approx(full["score"], abs=0.05)
    boxes = [max(run["regions"], key=lambda region: region["area"]) for run in runs]
    assert boxes[1]["area"] == pytest.approx(boxes[0]["area"], rel=0.2), "in pixels of the whole image"

    fails(refused("--source", images, "--reduced-jpeg", "--output", tmp_path / "out"), 2, "--reduced-jpeg")
    video = write_video(tmp_path / "a.mp4", 3)
    fails(refused("--source", video, "--reduced-jpeg", *CPU), 2, "--reduced-jpeg", "video")
