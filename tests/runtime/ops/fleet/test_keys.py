"""Keys and signatures, also against openssl's own."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest

from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.keys import make_keys, read_signing_key, read_trusted_keys
from kanoclip.runtime.ops.fleet.statement import PAYLOAD_TYPE, Statement, now, sign, verified

STATEMENT = Statement("sha256:" + "ab" * 32, "toy", "line3", "2026-01-02T03:04:05+00:00")


def test_what_was_signed_comes_back(keys):
    statement, key = verified(sign(STATEMENT, keys.signing), keys.trusted)
    assert statement == STATEMENT and key.shown == "line.pub"
    assert statement.time.tzinfo is not None and Statement("", "", None, now()).time.tzinfo is not None


def test_any_byte_that_is_changed_is_noticed(keys):
    envelope = json.loads(sign(STATEMENT, keys.signing))
    payload = base64.b64decode(envelope["payload"])
    for index in range(0, len(payload), 7):
        changed = bytearray(payload)
        changed[index] ^= 1
        forged = envelope | {"payload": base64.b64encode(changed).decode()}
        with pytest.raises(FleetError, match=r"not line\.pub's: it was changed"):
            verified(json.dumps(forged).encode(), keys.trusted)
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    for wrong in (bytes(64), bytes(signature[:63]), bytes(signature) + b"\0", b""):
        envelope["signatures"][0]["sig"] = base64.b64encode(wrong).decode()
        with pytest.raises(FleetError, match="it was changed"):
            verified(json.dumps(envelope).encode(), keys.trusted)


def test_a_signature_of_another_kind_of_thing_does_not_count(keys):
    """The type is signed as well: a signature over the same bytes as something else is no signature here."""
    envelope = json.loads(sign(STATEMENT, keys.signing))
    payload = base64.b64decode(envelope["payload"])
    envelope["signatures"][0]["sig"] = base64.b64encode(keys.signing.sign(payload)).decode()
    with pytest.raises(FleetError, match="it was changed"):
        verified(json.dumps(envelope).encode(), keys.trusted)
    with pytest.raises(FleetError, match="another kind"):
        verified(json.dumps(envelope | {"payloadType": "text/plain"}).encode(), keys.trusted)


def test_a_key_that_nobody_trusts(keys, other_keys):
    envelope = sign(STATEMENT, other_keys.signing)
    with pytest.raises(FleetError, match=rf"signed by {other_keys.signing.id[:19]}, which --trust does not name"):
        verified(envelope, keys.trusted)
    # An attacker's signature under the trusted key's number.
    forged = json.loads(envelope)
    forged["signatures"][0]["keyid"] = keys.signing.id
    with pytest.raises(FleetError, match="it was changed"):
        verified(json.dumps(forged).encode(), keys.trusted)
    both = json.loads(envelope)
    both["signatures"] += json.loads(sign(STATEMENT, keys.signing))["signatures"]
    assert verified(json.dumps(both).encode(), keys.trusted)[0] == STATEMENT


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"payload": 3}',
        b'{"payload": "*", "signatures": []}',
        b"[" * 100_000,
        b'{"payload": "e30=", "payloadType": "x", "signatures": [3]}',
        b'{"payload": "e30=", "payloadType": "x", "signatures": null}',
    ],
)
def test_what_is_no_envelope(keys, envelope):
    with pytest.raises(FleetError, match="no DSSE envelope"):
        verified(envelope, keys.trusted)


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "sha256:12"},
        {"bundle": 3},
        {"tag": 3},
        {"signed_at": "yesterday"},
        {"signed_at": "2026-01-02T03:04:05"},
        {"more": 1},
    ],
)
def test_a_signed_statement_of_a_later_version_is_refused(keys, change):
    payload = json.dumps(STATEMENT.__dict__ | change).encode()
    signed = keys.signing.sign(
        b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    )
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keys.signing.id, "sig": base64.b64encode(signed).decode()}],
    }
    with pytest.raises(FleetError, match="upgrade"):
        verified(json.dumps(envelope).encode(), keys.trusted)


def test_key_files(tmp_path, monkeypatch, keys):
    private, public = tmp_path / "a.key", tmp_path / "a.pub"
    monkeypatch.setenv("KANOCLIP_KEY_PASSWORD", "a word")
    number = make_keys(private, public)
    assert private.stat().st_mode & 0o777 == 0o600 and b"ENCRYPTED" in private.read_bytes()
    assert read_signing_key(private).id == number == read_trusted_keys([public])[0].id
    with pytest.raises(FleetError, match="is there already"):
        make_keys(private, public)
    monkeypatch.setenv("KANOCLIP_KEY_PASSWORD", "another")
    with pytest.raises(FleetError, match="KANOCLIP_KEY_PASSWORD is wrong"):
        read_signing_key(private)
    monkeypatch.delenv("KANOCLIP_KEY_PASSWORD")
    with pytest.raises(FleetError, match="is encrypted: set KANOCLIP_KEY_PASSWORD"):
        read_signing_key(private)
    # Several in one file, as for a change of keys.
    several = tmp_path / "several.pub"
    several.write_bytes(b"# two\n" + public.read_bytes() + b"\n" + keys.public.read_bytes())
    assert [key.id for key in read_trusted_keys([several])] == [number, keys.signing.id]


def test_files_that_are_no_keys(tmp_path, keys):
    for content, said in (
        (b"", "no public key in PEM"),
        (b"hello", "no public key in PEM"),
        (keys.private.read_bytes(), "private key, which no box should have"),
        (b"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n", "damaged"),
    ):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(FleetError, match=said):
            read_trusted_keys([tmp_path / "x"])
    with pytest.raises(FleetError, match="cannot be read"):
        read_trusted_keys([tmp_path / "nowhere"])
    with pytest.raises(FleetError, match="no private key in PEM"):
        read_signing_key(keys.public)


@pytest.mark.programs("openssl")
def test_keys_of_openssl_and_keys_for_it(tmp_path, program, keys):
    openssl = program("openssl")

    def run(*arguments):
        subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True)

    run("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "o.key")
    run("pkey", "-in", tmp_path / "o.key", "-pubout", "-out", tmp_path / "o.pub")
    key = read_signing_key(tmp_path / "o.key")
    assert verified(sign(STATEMENT, key), read_trusted_keys([tmp_path / "o.pub"]))[0] == STATEMENT
    # And the other way: what is signed here, openssl verifies, by DSSE's rule.
    envelope = json.loads(sign(STATEMENT, keys.signing))
    payload = base64.b64decode(envelope["payload"])
    (tmp_path / "signed").write_bytes(
        b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
    )
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    files = ("-inkey", keys.public, "-in", tmp_path / "signed", "-sigfile", tmp_path / "sig")
    run("pkeyutl", "-verify", "-pubin", "-rawin", *files)
    run("genrsa", "-out", tmp_path / "rsa.key", "1024")
    with pytest.raises(FleetError, match="not Ed25519"):
        read_signing_key(tmp_path / "rsa.key")
