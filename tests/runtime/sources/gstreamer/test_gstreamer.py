"""GStreamer sources: with a stand-in for gst-launch-1.0 that fails in every way, and with the real one where it is."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import GStreamerSource, check_camera, open_camera, open_source
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.sources.gstreamer import gstreamer, launch

FAKE = runpy.run_path(str(Path(__file__).parents[3] / "support" / "fake_gst_launch.py"))
EXAMPLES = Path(__file__).parents[4] / "examples" / "hazelnut_toy"
needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None
    or subprocess.run(["gst-inspect-1.0", "matroskamux"], capture_output=True, check=False).returncode != 0,
    reason="gst-launch-1.0 with plugins-good is not installed",
)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts the stand-in first on PATH; the function that it gives chooses how it behaves."""
    folder = FAKE["install"](tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GST_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(gstreamer, "OPEN_TIMEOUT_S", 20.0)
    monkeypatch.setattr(launch, "CLOSE_GRACE_S", 1.0)

    def choose(mode):
        monkeypatch.setenv("FAKE_GST", mode)
        return tmp_path / "log"

    return choose


def drain(source):
    """All frames and the error that ended them, if one did."""
    frames = []
    try:
        for frame in source.frames():
            frames.append(frame)
        return frames, None
    except SourceError as error:
        return frames, str(error)
    finally:
        source.close()


def gone(pid):
    """Whether a process has ended; one that nobody has waited for yet counts as ended."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (OSError, IndexError):
            return True
        time.sleep(0.02)
    return False


def test_a_pipeline_gives_whole_frames_and_ends(fake):
    log = fake("normal")
    source = open_source("gst://videotestsrc num-buffers=5 ! video/x-raw,width=6 ! identity name='two words'")
    assert isinstance(source, GStreamerSource)
    assert (source.live, source.fps, source.count, source.root) == (True, 25.0, None, None)
    before = time.time()
    frames, error = drain(source)
    assert error is None
    assert [frame.index for frame in frames] == list(range(5))
    for frame in frames:
        assert frame.image.shape == (4, 6, 3) and frame.image.dtype == np.uint8
        assert (frame.image[:, :, 0] == frame.index).all()
        assert frame.source == source.name
        assert before - 1 < frame.captured_at <= time.time() and frame.capture_ms >= 0
    pid, *arguments = log.read_text().splitlines()
    assert gone(pid)
    # Every part is an argument of its own, and our tail comes after the user's elements.
    assert arguments[:6] == ["videotestsrc", "num-buffers=5", "!", "video/x-raw,width=6", "!", "identity"]
    assert arguments[6:8] == ["name=two words", "!"]
    assert arguments[8:-1] == [
        "videoconvert", "!", "video/x-raw,format=BGR", "!", "matroskamux", "streamable=true", "!", "fdsink",
    ]  # fmt: skip


def test_a_pipeline_of_files_is_not_live(fake):
    fake("file")
    source = open_source("gst://filesrc location=x ! decodebin !")
    assert not source.live
    assert len(drain(source)[0]) == 5


@pytest.mark.parametrize(
    ("mode", "frames", "parts"),
    [
        ("cut", 5, ["broke off in the middle of frame 5"]),
        ("cut head", 5, ["broke off in the middle of frame 5"]),
        ("stall", 5, ["no frame for 2 s after 5 frames"]),
        ("trickle", 5, ["no frame for 2 s after 5 frames"]),
        ("dies", 5, ["stopped after 5 frames (exit code 1)", "Could not read from resource"]),
        ("resized", 1, ["frame 1 cannot be read", "is no 6x4"]),
    ],
)
def test_what_goes_wrong_in_mid_stream_ends_with_an_error_after_the_whole_frames(fake, mode, frames, parts):
    log = fake(mode)
    started = time.monotonic()
    found, error = drain(open_source("gst://videotestsrc", stall_s=2.0))
    assert time.monotonic() - started < 15
    assert len(found) == frames
    assert all((frame.image[:, :, 0] == frame.index).all() for frame in found)
    assert error.startswith("gst://videotestsrc: ") and "\n" not in error
    for part in parts:
        assert part in error
    assert gone(log.read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("mode", "spec", "parts"),
    [
        ("error", "gst://v4l2src", ["exit code 255", "Cannot identify device '/dev/video9'"]),
        ("silent", "gst://fakesrc", ["ended without a frame (exit code 0)", "try the pipeline with gst-launch-1.0"]),
        ("argus", "csi://0", ["No cameras available", "nvargus-daemon"]),
        ("junk", "gst://x", ["not the stream that was asked for"]),
        ("codec", "gst://x", ["instead of uncompressed BGR"]),
    ],
)
def test_a_pipeline_that_gives_no_frame_says_why(fake, mode, spec, parts):
    log = fake(mode)
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    assert str(caught.value).startswith(f"{spec}: ")
    for part in parts:
        assert part in str(caught.value)
    assert gone(log.read_text().splitlines()[0])


def test_a_pipeline_that_never_starts_to_deliver_is_ended(fake, monkeypatch):
    log = fake("stuck")
    monkeypatch.setattr(gstreamer, "OPEN_TIMEOUT_S", 1.0)
    with pytest.raises(SourceError, match="no frame within 1 s"):
        open_source("gst://videotestsrc")
    assert gone(log.read_text().splitlines()[0])


def test_what_the_tool_prints_never_blocks_it(fake):
    fake("chatty")
    frames, error = drain(open_source("gst://videotestsrc"))
    assert (len(frames), error) == (5, None)


def test_a_csi_camera_has_no_end(fake):
    log = fake("file")  # whatever it says, it is live
    source = open_camera("csi://1?width=1280&height=720&fps=60&flip=2&mode=3")
    assert source.live and source.name == "csi://1?width=1280&height=720&fps=60&flip=2&mode=3"
    frames, error = drain(source)
    assert len(frames) == 5 and "stopped after 5 frames (exit code 0)" in error
    arguments = log.read_text().splitlines()[1:]
    assert " ".join(arguments).startswith(
        "nvarguscamerasrc sensor-id=1 sensor-mode=3 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=60/1 ! "
        "nvvidconv flip-method=2 ! video/x-raw,format=BGRx ! queue leaky=downstream max-size-buffers=1 "
        "max-size-bytes=0 max-size-time=0 ! videoconvert ! "
    )


def test_where_nobody_looks_a_csi_camera_gives_small_frames_of_a_known_full_size(fake):
    log = fake("file")
    reading = Reading(model_size=(256, 256))
    for spec, full_size in (("csi://0", (1080, 1920)), ("csi://0?whole=1", None), ("csi://0?flip=3", (1920, 1080))):
        frames, _ = drain(open_camera(spec, reading=reading))
        assert [frame.full_size for frame in frames] == [full_size] * 5, spec
        assert ("interpolation-method=1" in log.read_text()) is (full_size is not None)
    frames, _ = drain(open_source("gst://videotestsrc", reading=reading))  # whatever it gives is whole
    assert {frame.full_size for frame in frames} == {None}


@pytest.mark.parametrize("mode", ["endless", "deaf", "family"])
def test_closing_ends_the_process_and_its_family(fake, mode):
    log = fake(mode)
    source = open_source("gst://videotestsrc")
    frames = source.frames()
    next(frames)
    started = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - started < 4
    assert gone(log.read_text().splitlines()[0])
    if mode == "family":
        assert gone(log.with_suffix(".child").read_text())


def test_a_source_outlives_the_thread_that_opened_it(fake):
    # The kernel takes the death of a thread for that of its process when it counts parents.
    fake("endless")
    opened = []
    thread = threading.Thread(target=lambda: opened.append(open_source("gst://videotestsrc")))
    thread.start()
    thread.join()
    time.sleep(0.2)
    frames = opened[0].frames()
    assert len([next(frames) for _ in range(60)]) == 60
    opened[0].close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent death signal")
@pytest.mark.parametrize("mode", ["deaf", "stuck"])
def test_no_process_is_left_when_ours_is_killed(fake, mode):
    log = fake(mode)
    script = "from kanoclip.runtime.sources import open_source\nfor f in open_source('gst://x').frames(): pass"
    ours = subprocess.Popen([sys.executable, "-c", script])
    for _ in range(500):
        if log.exists() and log.read_text().count("\n"):
            break
        time.sleep(0.02)
    time.sleep(0.3)
    child = log.read_text().splitlines()[0]
    assert Path(f"/proc/{child}").exists()
    ours.send_signal(signal.SIGKILL)
    ours.wait()
    assert gone(child)


def test_a_missing_tool_is_named_with_its_packages(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"^csi://0: gst-launch-1.0 is not installed: apt-get install gstreamer1.0-t"):
        open_camera("csi://0")


def test_a_tool_that_cannot_be_executed(monkeypatch, tmp_path):
    broken = tmp_path / "gst-launch-1.0"
    broken.write_bytes(b"\x7fELF this is no program")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"gst://x: ended without a frame .*Exec format error"):
        open_source("gst://x")


def test_passwords_in_a_pipeline_are_used_and_never_shown(fake):
    log = fake("secret")
    spec = "gst://rtspsrc location=rtsp://me:s3cret@cam/live user-pw=hunter2 user-id=bob ! decodebin"
    with pytest.raises(SourceError) as caught:
        open_source(spec)
    for secret in ("s3cret", "hunter2", "bob"):
        assert secret not in str(caught.value)
        assert secret in log.read_text()
    shown = "gst://rtspsrc location=rtsp://***@cam/live user-pw=*** user-id=*** ! decodebin: "
    assert str(caught.value).startswith(shown)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gst://", "no pipeline given"),
        ("gst:// ! ", "no pipeline given"),
        ("gst://a 'b", "check its quotes"),
        ("gst://rtspsrc user-pw = s3cret", "without blanks around ="),
        ("csi://", "sensor must be a whole number from 0 to 63, not ''"),
        ("csi://0 ! filesink location=/etc/x", "sensor must be"),
        ("csi://-1", "sensor must be"),
        ("csi://0?width=1280 ! filesink", "width must be"),
        ("csi://0?width=٣٣٣", "width must be"),
        ("csi://0?fps=0", "fps must be a whole number from 1 to 1000, not '0'"),
        ("csi://0?zoom=2", "unknown option 'zoom'; known are width, height, fps, flip, mode, whole"),
        ("csi://0?width", "options are written"),
        ("csi://0?fps=30&fps=60", "given twice"),
    ],
)  # fmt: skip
def test_what_is_no_pipeline_and_no_camera(fake, spec, message):
    with pytest.raises(SourceError, match=message) as caught:
        open_source(spec)
    assert "s3cret" not in str(caught.value)


def test_cameras_by_index_device_and_csi(monkeypatch, tmp_path):
    for good in ("0", "12", "/dev/video2", "/dev/v4l/by-id/usb-cam", "csi://0", "csi://1?fps=60"):
        check_camera(good)
    for bad in ("front", "-1", "", "0x1", "²", "12345", "video0", "csi://x", "gst://x", "rtsp://x"):
        with pytest.raises(SourceError):
            check_camera(bad)
    with pytest.raises(SourceError, match="camera 97 cannot be opened"):
        open_camera("97")
    with pytest.raises(SourceError, match=r"^/dev/video98: no such device \(present: "):
        open_camera("/dev/video98")
    with pytest.raises(SourceError, match=r"^/dev/null: not a camera; give /dev/videoN"):
        open_camera("/dev/null")


@needs_gstreamer
class TestRealGStreamer:
    """With the real tool; skipped where it is not installed."""

    @pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 241), (1920, 1080), (17, 16)])
    def test_channel_order_and_sizes(self, width, height):
        size = f"video/x-raw,width={width},height={height}"
        source = open_source(
            f"gst://videotestsrc pattern=solid-color foreground-color=0xffff8010 num-buffers=3 ! {size}"
        )
        frames, error = drain(source)
        assert error is None and len(frames) == 3
        for frame in frames:
            assert frame.image.shape == (height, width, 3)
            assert np.abs(frame.image.astype(int) - [0x10, 0x80, 0xFF]).max() <= 2

    def test_images_are_those_that_opencv_reads(self):
        path = EXAMPLES / "test" / "good" / "04.jpg"
        (frame,), error = drain(open_source(f"gst://filesrc location={path} ! jpegdec"))
        assert error is None
        assert np.abs(frame.image.astype(int) - cv2.imread(str(path))).mean() < 1.5

    def test_live_and_not_live(self):
        live = open_source("gst://videotestsrc is-live=true num-buffers=10")
        assert live.live and live.fps == 30
        frames, error = drain(live)
        assert error is None and len(frames) == 10
        assert 0.25 < frames[-1].captured_at - frames[0].captured_at < 3
        source = open_source("gst://videotestsrc num-buffers=2 ! video/x-raw,framerate=25/1")
        assert (source.live, source.fps) == (False, 25)
        assert len(drain(source)[0]) == 2

    def test_frames_that_waited_in_the_pipe_keep_the_time_of_their_capture(self):
        source = open_source("gst://videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1")
        times = []
        for frame in source.frames():
            times.append(frame.captured_at)
            if len(times) == 10:
                time.sleep(1.0)
            if len(times) == 40:
                break
        source.close()
        assert np.abs(np.diff(times[2:]) - 0.05).max() < 0.03  # stamped as read, one step would be a second

    def test_a_size_that_changes_in_mid_stream_is_an_error_and_not_garbage(self):
        small, large = (f"videotestsrc num-buffers=4 ! video/x-raw,width={w},height=48" for w in (64, 80))
        frames, error = drain(open_source(f"gst://{small} ! concat name=c {large} ! c. c."))
        assert len(frames) <= 4 and all(frame.image.shape == (48, 64, 3) for frame in frames)
        assert "changed their size" in error

    @pytest.mark.parametrize(
        ("spec", "parts"),
        [
            ("gst://nosuchelement", ['no element "nosuchelement"', "gst-inspect-1.0 nosuchelement"]),
            ("gst://v4l2src device=/dev/video98", ["Cannot identify device '/dev/video98'"]),
            ("gst://fakesrc num-buffers=3 ! image/png", ["could not link"]),
        ],
    )
    def test_its_own_words_are_in_the_error(self, spec, parts):
        with pytest.raises(SourceError) as caught:
            open_source(spec)
        for part in parts:
            assert part in str(caught.value)

    @pytest.mark.skipif(Path("/etc/nv_tegra_release").exists(), reason="this is a Jetson")
    def test_csi_elsewhere_names_the_jetson(self):
        with pytest.raises(SourceError, match=r"nvarguscamerasrc.*needs a Jetson"):
            open_camera("csi://0")

    def test_an_endless_pipeline_is_closed_at_once(self):
        source = open_source("gst://videotestsrc ! video/x-raw,width=1920,height=1080")
        frames = source.frames()
        next(frames)
        started = time.monotonic()
        source.close()
        assert time.monotonic() - started < 1.5
