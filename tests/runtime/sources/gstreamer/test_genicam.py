"""GenICam cameras: what their strings become, and Aravis' own fake GigE Vision camera on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SourceError
from kanoclip.runtime.sources import check_camera, open_camera, open_source, open_stream
from kanoclip.runtime.sources.gstreamer.genicam import GenicamCamera

SYSTEM_PYTHON = "/usr/bin/python3"
CAMERA = Path(__file__).parents[3] / "support" / "genicam_camera.py"


def pipeline(spec):
    return " ".join(GenicamCamera.parse(spec).pipeline())


def test_what_a_camera_becomes():
    assert pipeline("genicam://") == (
        "aravissrc auto-packet-size=true ! video/x-raw ! "
        "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
    )
    assert pipeline(
        "genicam://Basler-21234567?exposure=2000.5&gain=auto&pixel-format=bayer-rg8&width=1280&height=1024&x=16&y=8"
        "&fps=12.5&packet-size=9000"
    ).startswith(
        "aravissrc camera-name=Basler-21234567 exposure-auto=off exposure=2000.5 gain-auto=continuous offset-x=16 "
        "offset-y=8 packet-size=9000 ! video/x-bayer,format=rggb,width=1280,height=1024,framerate=12500/1000 ! "
        "bayer2rgb ! queue"
    )
    assert "camera-name=The Imaging Source-1 !" in pipeline(
        "genicam://The%20Imaging%20Source-1?packet-size=1500"
    ).replace(" packet-size=1500", "")
    check_camera("genicam://192.168.1.7")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("genicam://a!b", "not a camera's name"),
        ("genicam://x%20!%20filesink%20location=y", "not a camera's name"),
        ("genicam://x?exposure=0", "exposure must be a number from 1 to"),
        ("genicam://x?exposure=1e3", "exposure must be a number"),
        ("genicam://x?exposure=", "exposure must be a number"),
        ("genicam://x?gain=-1", "gain must be a number from 0 to 100"),
        ("genicam://x?fps=auto", "fps must be a number"),
        ("genicam://x?width=8", "width must be a whole number from 16"),
        ("genicam://x?pixel-format=h264", "pixel-format must be one of mono8, "),
        ("genicam://x?shutter=1", "unknown option 'shutter'; known are exposure, gain"),
        ("genicam://x?gain=1&gain=2", "given twice"),
    ],
)
def test_what_is_refused(spec, said):
    for refuse in (check_camera, open_source):
        with pytest.raises(SourceError, match=said):
            refuse(spec)


LIKELY = st.text("AZaz09 !._:-%=/;", max_size=12)


@given(st.one_of(st.text(max_size=40), LIKELY), st.one_of(st.text(max_size=20), st.text("0123456789.", max_size=6)))
@example("Basler-1", "2000")
@example("x%20!%20y", "1")
def test_nothing_else_gets_into_the_pipeline(name, value):
    try:
        parts = GenicamCamera.parse(f"genicam://{name}?exposure={value}").pipeline()
    except SourceError:
        return
    usual = GenicamCamera("Basler-1", exposure=1.0).pipeline()
    named = [part for part in parts if part.startswith("camera-name=")]
    assert len(named) <= 1
    assert len(parts) == len(usual) - (not named)
    assert [part for part in parts if "!" in part] == ["!", "!"]


def missing():
    if shutil.which("gst-inspect-1.0") is None:
        return "gst-inspect-1.0 is not installed"
    if subprocess.run(["gst-inspect-1.0", "aravissrc"], capture_output=True, check=False).returncode:
        return "Aravis' GStreamer element is not installed"
    script = "import gi; gi.require_version('Aravis', '0.8')"
    if subprocess.run([SYSTEM_PYTHON, "-c", script], capture_output=True, check=False).returncode:
        return "gir1.2-aravis-0.8 is not installed"
    return None


@pytest.fixture
def fake_camera(tmp_path, monkeypatch):
    """Starts a fake camera of a serial number; several times."""
    reason = missing()
    if reason is not None:
        reason += " (tests/apt-packages.txt)"
        if os.environ.get("KANOCLIP_REQUIRE_SERVICES") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    if os.geteuid() == 0:
        # As root Aravis reads packets off the interface, which loopback does not have.
        shim = tmp_path / "bin" / "gst-launch-1.0"
        shim.parent.mkdir()
        shim.write_text(
            "#!/bin/sh\n"
            f'exec setpriv --bounding-set=-net_raw --inh-caps=-net_raw {shutil.which("gst-launch-1.0")} "$@"\n'
        )
        shim.chmod(0o755)
        monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")
    processes = []

    def start(serial):
        process = subprocess.Popen([SYSTEM_PYTHON, str(CAMERA), serial], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_frames_of_a_real_gige_vision_stream(fake_camera):
    fake_camera("K1")
    source = open_camera("genicam://Aravis-Fake-K1?exposure=5000&gain=3&pixel-format=mono8&width=320&height=240&fps=20")
    assert source.live and source.fps == 20.0
    started = time.monotonic()
    frames = list(islice(source.frames(), 20))
    assert 0.6 < time.monotonic() - started < 4
    source.close()
    assert all(frame.image.shape == (240, 320, 3) for frame in frames)
    assert abs(frames[-1].captured_at - time.time()) < 2
    assert (frames[0].image != frames[-1].image).any()


def test_an_unknown_camera_is_told(fake_camera):
    fake_camera("K1")
    with pytest.raises(SourceError, match=r"genicam://Nobody: .*check the camera's power, cable and address"):
        open_camera("genicam://Nobody")


def test_a_camera_that_loses_its_power_is_found_again(fake_camera):
    camera = fake_camera("K2")
    source = open_stream("genicam://Aravis-Fake-K2?width=320&height=240&fps=20", camera=True, stall_s=5.0)
    came = []
    thread = threading.Thread(target=lambda: came.extend((f.index, time.monotonic()) for f in source.frames()))
    thread.start()
    deadline = time.monotonic() + 10
    while len(came) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    camera.send_signal(signal.SIGKILL)
    camera.wait()
    while source.health().connected:
        assert time.monotonic() < deadline + 10
        time.sleep(0.02)
    fake_camera("K2")
    back = time.monotonic()
    while not source.reconnects:
        assert time.monotonic() - back < 5
        time.sleep(0.02)
    time.sleep(0.5)
    source.interrupt()
    thread.join(5)
    assert not thread.is_alive()
    source.close()
    assert [index for index, _ in came] == list(range(len(came)))
