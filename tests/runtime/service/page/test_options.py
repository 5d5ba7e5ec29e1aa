"""What `--serve` and its token take, and what they refuse and say."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.errors import SettingsError
from kanoclip.runtime.service.page import PageOptions
from kanoclip.runtime.service.page.options import is_loopback

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:1", "localhost", 1),
        ("[::1]:65535", "::1", 65535),
        ("127.3.4.5:0", "127.3.4.5", 0),
    ],
)
def test_loopback_needs_no_token(address, host, port):
    options = PageOptions.parse(address)
    assert (options.host, options.port, options.token, options.secure) == (host, port, None, False)


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "192.168.1.7:8080", "[fe80::1]:80", "no.such.host:80"])
def test_any_other_address_needs_a_token(address):
    with pytest.raises(SettingsError, match=r"needs a token.*openssl rand -hex 32"):
        PageOptions.parse(address)
    assert PageOptions.parse(address, token=TOKEN).token == TOKEN


@pytest.mark.parametrize(
    "address", ["", "8080", ":8080", "localhost", "localhost:", "::1:80", "h:x", "h:70000", "h:-1", "h:٣"]
)
def test_bad_addresses_are_refused_by_name(address):
    with pytest.raises(SettingsError, match="--serve"):
        PageOptions.parse(address, token=TOKEN)


def test_a_file_overrides_the_environment(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    assert PageOptions.parse("0.0.0.0:80", token_file=path, token="x" * 20).token == TOKEN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "one line"),
        (b"\n\n", "one line"),
        (b"a\nb\n", "one line"),
        (b"secret-short", "16 to 1024"),
        (b"two secret words of a phrase", "without spaces"),
        ("schlüssel-der-lang-genug-ist".encode(), "letters and digits"),
        (b"s" * 4000, "16 to 1024"),
        (b"secret\x00secret\x00secret", "16 to 1024"),
    ],
)
def test_bad_token_files_are_refused_without_telling_the_token(tmp_path, content, why):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=why) as caught:
        PageOptions.parse("0.0.0.0:80", token_file=path)
    assert "secret" not in str(caught.value) and "schl" not in str(caught.value)


def test_a_missing_token_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.*No such file"):
        PageOptions.parse("127.0.0.1:80", token_file=tmp_path / "nowhere")


def test_a_token_that_others_can_read_is_said(tmp_path, caplog):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    for mode, said in ((0o600, 0), (0o640, 0), (0o644, 1)):
        path.chmod(mode)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            PageOptions.parse("0.0.0.0:80", token_file=path)
        assert len(caplog.records) == said
        assert TOKEN not in caplog.text


def test_the_token_is_in_no_representation():
    assert TOKEN not in repr(PageOptions.parse("0.0.0.0:80", token=TOKEN))


@pytest.mark.parametrize("name", ["", "http://x", "a:1", "*", "a/b", "täg"])
def test_bad_host_names_are_refused(name):
    with pytest.raises(SettingsError, match="--allow-host"):
        PageOptions.parse("127.0.0.1:80", allow_hosts=[name])


def test_a_key_alone_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="--tls-cert"):
        PageOptions.parse("127.0.0.1:80", tls_key=tmp_path / "key.pem")


@given(st.ip_addresses())
def test_loopback_is_the_address_family_s_own(address):
    assert is_loopback(str(address)) is address.is_loopback
