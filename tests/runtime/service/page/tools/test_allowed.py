"""What may be added by the page: a list of what is allowed, and nothing that only looks like it."""

from __future__ import annotations

import pytest

from kanoclip.runtime.errors import SettingsError, SourceError
from kanoclip.runtime.service.page.tools.allowed import AllowedSources

NONE = AllowedSources()
SOME = AllowedSources.parse(("rtsp://192.168.1.*", "rtsp://*.cams.example:8554/line3/", "http://[fd00::7]/"))


@pytest.mark.parametrize(
    ("spec", "camera"),
    [
        ("0", True),
        ("12", True),
        ("/dev/video2", True),
        ("/dev/v4l/by-id/usb-Cam_1-index0", True),
        ("test://?fps=5", False),
    ],
)
def test_cameras_of_this_machine_may_always(spec, camera):
    assert NONE.check(spec) is camera


@pytest.mark.parametrize(
    "spec",
    [
        "rtsp://192.168.1.20/stream1",
        "rtsp://user:pass@192.168.1.7:554/x?y=1",
        "rtsp://a.cams.example:8554/line3/left",
        "http://[fd00::7]/mjpeg",
    ],
)
def test_what_the_operator_named_may(spec):
    assert SOME.check(spec) is False
    with pytest.raises(SourceError, match="may not be added here"):
        NONE.check(spec)


@pytest.mark.parametrize(
    "spec",
    [
        "rtsp://192.168.2.20/stream1",
        "rtsp://192.168.1.evil.example/",  # a name that begins like the addresses
        "rtsp://192.168.1.7@evil.example/",
        "rtsp://evil.example/192.168.1.7",
        "rtsp://evil.example#192.168.1.7",
        "rtsps://192.168.1.20/",
        "rtsp://a.cams.example:8555/line3/left",
        "rtsp://a.cams.example:8554/line4/left",
        "rtsp://a.cams.example:8554/line3/../line4",
        "rtsp://cams.example.evil:8554/line3/",
        "rtsp://[::1",
        "gst://filesrc location=/etc/passwd ! filesink location=/tmp/x",
        "watch:///etc",
        "/etc/passwd",
        "/dev/video0/../../etc/passwd",
        "/dev/sda",
        "/dev/video0 ! filesink",
        "../clip.mp4",
        "file:///etc/passwd",
        "csi://0",
        "99999",
        "\u0660",
        "",
        " 0",
        "0\n",
        "x" * 501,
    ],
)
def test_nothing_else_may(spec):
    with pytest.raises(SourceError) as caught:
        SOME.check(spec)
    assert len(str(caught.value).splitlines()) == 1


def test_a_password_is_in_no_refusal():
    with pytest.raises(SourceError) as caught:
        NONE.check("rtsp://user:s3cret@10.0.0.1/x?token=s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "*", "rtsp://*", "rtsp://*.*", "rtsp://", "/dev/video*", "gst://x", "rtsp://u:s3cret@h/", "rtsp://[x"]
)
def test_patterns_that_allow_too_much_or_nothing_are_refused(text):
    with pytest.raises(SettingsError, match="--allow-sources") as caught:
        AllowedSources.parse((text,))
    assert "s3cret" not in str(caught.value)
