"""Addresses to listen on, well and badly written; URLs without their secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.system.net import (
    PublicUrl,
    has_secret,
    is_url,
    parse_address,
    redact_property,
    redact_text,
    redact_url,
)

# `{}` is where the secret stands.
FORMS = (
    "rtsp://admin:{}@10.0.0.7:554/ch1",
    "rtsp://{}:x@10.0.0.7/ch1",
    "rtsp://{}@10.0.0.7/ch1",
    "rtsp://admin:{}@[::1]:554/ch1?channel=1",
    "RTSP://admin:{}%40cam/ch1",
    "rtsp://admin%3A{}%2540cam/ch1",
    "rtsp://10.0.0.7:554/user=admin&password={}&channel=1",
    "rtsp://10.0.0.7:554/user={}&password=x&channel=1&stream=0.sdp?",
    "rtsp://10.0.0.7/user=admin_password={}_channel=1_stream=0.sdp?real_stream",
    "rtsp://10.0.0.7/live;password={}",
    "rtsp://10.0.0.7/live;user=admin;pwd={}",
    "http://cam/video?user=me&pwd={}&fps=5",
    "http://cam/video?fps=5&ACCESS_TOKEN={}",
    "http://cam/video?apikey={}",
    "http://cam/video?pass%77ord={}",
    "http://cam/%3Fuser%3Dadmin%26password%3D{}%26channel%3D1",
    "http://cam/%253Fauth%253D{}",
    "http://cam/token/{}/live.m3u8",
    "rtmp://cam/live?auth={}",
    "gst://rtspsrc location=rtsp://me:{}@cam/live ! decodebin",
    "gst://rtspsrc location=rtsp://cam/live user-id=me user-pw={} ! decodebin",
    "gst://uridecodebin uri=http://cam/user=a&password={} ! videoconvert",
    "gst://souphttpsrc location=http://cam/x proxy-pw={} ! jpegdec",
    "gst://souphttpsrc extra-headers=headers,Authorization=(string){} ! jpegdec",
    "gst://rtsp://me:{}@cam/live ! decodebin",
)
PLAIN = "abcXYZ019-._~!$*+"
SPOILT = PLAIN + "#/?@:;&=%,'()"


def test_addresses():
    assert parse_address("127.0.0.1:8081") == ("127.0.0.1", 8081)
    assert parse_address("[::1]:0") == ("::1", 0)
    assert parse_address("kano.local:65535") == ("kano.local", 65535)
    for text in (
        "",
        "8081",
        ":8081",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "::1:80",
        "[::1]",
        "a:65536",
        "a:-1",
        "a:٣",
    ):
        with pytest.raises(SettingsError, match="is no address"):
            parse_address(text)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.7:554/h264?ch=1", "rtsp://***@10.0.0.7:554/h264?ch=1"),
        ("rtsp://admin:p@ss@cam/x", "rtsp://***@cam/x"),
        ("http://cam/video?user=me&pwd=s3cret&fps=5", "http://cam/video?user=***&pwd=***&fps=5"),
        ("https://cam/live.m3u8?token=s3cret", "https://cam/live.m3u8?token=***"),
        ("http://cam/video", "http://cam/video"),
        ("http://[s3cret", "http://..."),
    ],
)
def test_credentials_are_never_shown(url, shown):
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:Se#cret1@127.0.0.1:5554/ch1", "rtsp://***@127.0.0.1:5554/ch1"),
        ("rtsp://admin:Se/cret1@127.0.0.1:5554/ch1", "rtsp://***@127.0.0.1:5554/ch1"),
        ("rtsp://admin:12/34@127.0.0.1:5554/ch1", "rtsp://***@127.0.0.1:5554/ch1"),
        ("rtsp://h:1/user=admin&password=Secret1&channel=1", "rtsp://h:1/user=***&password=***&channel=1"),
        (
            "rtsp://h/user=admin_password=x_channel=2_stream=0.sdp",
            "rtsp://h/user=***_password=***_channel=2_stream=0.sdp",
        ),
        ("rtsp://h/x;password=Secret", "rtsp://h/x;password=***"),
        ("rtsp://admin:Secret", "rtsp://..."),
        ("http://cam/live#Secret", "http://cam/live"),
        ("http://h/a?user=me@home&pwd=x", "http://***"),
        ("watch:///data/a:b@c?done=/x", "watch:///data/a:b@c?done=/x"),
        ("images/a=1/b.png", "images/a=1/b.png"),
        ("admin:Secret@10.0.0.7/ch1", "***@10.0.0.7/ch1"),
        ("gst://rtspsrc user-pw='a b' ! x", "gst://rtspsrc user-pw=*** ! x"),
        ("gst://rtspsrc user-pw='a b ! x", "gst://..."),
    ],
)
def test_what_is_left_of_an_address(url, shown):
    assert redact_url(url) == shown
    assert redact_url(shown) == shown


def _quotable(secret: str, form: str) -> bool:
    """Whether a shell's rules leave the secret in one piece, where the form is split by them."""
    return not form.startswith("gst") or "'" not in secret


@given(st.text(PLAIN, min_size=3, max_size=20), st.sampled_from(FORMS))
def test_no_secret_survives(secret, form):
    """Neither in the public name nor in a message that quotes the address, or the secret alone."""
    marked = f"S3C{secret}C3S"
    url = form.format(marked)
    assert has_secret(url), url
    for text in (redact_url(url), redact_text(f"cannot open {url}: no", [url]), redact_text(f"bad '{marked}'", [url])):
        assert marked not in text and "S3C" not in text and "C3S" not in text, text


@given(st.text(SPOILT, min_size=3, max_size=20), st.sampled_from(FORMS))
def test_no_secret_survives_that_should_have_been_escaped(secret, form):
    """Its delimiters end a field or the host early."""
    url = form.format(f"S3C{secret}C3S")
    if _quotable(secret, form):
        assert "S3C" not in redact_url(url) and "C3S" not in redact_url(url), redact_url(url)


@given(st.text(SPOILT + "x ", max_size=60))
def test_redaction_takes_whatever_comes_and_is_stable(text):
    for url in (text, f"rtsp://{text}", f"gst://{text}"):
        once = redact_url(url)
        assert url.startswith("gst") or redact_url(once) == once
        assert PublicUrl.of(url).shown == once
        redact_text(url, [url])


def test_an_address_never_shows_its_secret_by_itself():
    address = PublicUrl.of("rtsp://admin:Se#cret1@cam/ch1")
    assert "cret1" not in repr(address)
    assert address.scrub("no host 'cret1@cam', nor rtsp://admin:Se#cret1@cam/ch1") == (
        "no host '***@cam', nor rtsp://***@cam/ch1"
    )
    assert "%23 %2F %3F" in address.hint
    assert PublicUrl.of("rtsp://admin:Se%23cret1@cam/ch1").hint == ""
    assert PublicUrl.of("rtsp://cam/ch1?x=1#2").hint == ""


def test_texts_of_libraries():
    assert redact_text("Authorization: Basic YWRtaW46cHc= sent") == "Authorization: Basic *** sent"
    assert redact_text('{"token": "abc", "fps": 5}') == '{"token": ***, "fps": 5}'
    assert redact_text("give them as rtsp://USER:PASSWORD@...") == "give them as rtsp://USER:PASSWORD@..."
    assert redact_text("listening at http://127.0.0.1:8080, or (http://[::1]:80)") == (
        "listening at http://127.0.0.1:8080, or (http://[::1]:80)"
    )
    assert redact_property("video/x-raw,width=640") == "video/x-raw,width=640"


@pytest.mark.parametrize(
    ("spec", "known"),
    [
        ("rtsp://cam/x", True),
        ("RTSP://cam/x", True),
        ("https://cam", True),
        ("ftp://cam/x", False),
        ("rtsp:/cam", False),
        ("://cam", False),
        ("/video/rtsp", False),
        ("0", False),
        ("", False),
    ],
)
def test_urls_of_streams(spec, known):
    assert is_url(spec) is known
