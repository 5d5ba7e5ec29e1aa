"""Addresses to listen on, well and badly written."""

from __future__ import annotations

import pytest

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.system.net import parse_address


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
