"""Addresses to listen on, well and badly written; URLs without their secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.system.net import is_url, parse_address, redact_url


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


@given(st.text("abcXYZ019-._~!$&'()*+,;=", min_size=4, max_size=20))
def test_no_password_survives(password):
    marked = f"S3C{password}"
    assert marked not in redact_url(f"rtsp://user:{marked}@camera.local/stream?password={marked}")


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
