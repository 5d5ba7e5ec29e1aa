"""What a signature says, and the envelope that holds both: DSSE, the form that in-toto and Sigstore sign."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.address import ADDRESS
from kanoclip.runtime.ops.fleet.keys import SigningKey, TrustedKey

PAYLOAD_TYPE = "application/vnd.kanoclip.bundle.statement.v1+json"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
ENVELOPE_LIMIT = 64 << 10
_MOST_SIGNATURES = 16


@dataclass(frozen=True)
class Statement:
    """What is signed.

    The tag is a part of it, so that a store cannot give the bundle of one line to another; the time is, so that it
    cannot give out an old one as the newest.

    Attributes:
        bundle: Content address.
        name: The bundle's name.
        tag: Under which it may be pulled; None for pulls by content address.
        signed_at: ISO-8601 time in UTC.
    """

    bundle: str
    name: str
    tag: str | None
    signed_at: str

    @property
    def time(self) -> datetime:
        """`signed_at` as a time."""
        return datetime.fromisoformat(self.signed_at)


def now() -> str:
    """The time as a statement has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def sign(statement: Statement, key: SigningKey) -> bytes:
    """An envelope: the statement and its signature, as JSON."""
    payload = json.dumps(asdict(statement), sort_keys=True).encode()
    signature = key.sign(_encoded(payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key.id, "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, sort_keys=True).encode()


def verified(envelope: bytes, trusted: Sequence[TrustedKey]) -> tuple[Statement, TrustedKey]:
    """The statement in an envelope that one of the trusted keys signed, and that key.

    Nothing of the statement is looked at before its signature was found right.

    Raises:
        FleetError: It is no envelope, no trusted key signed it, or the signature is wrong.
    """
    try:
        value = json.loads(envelope)
        payload = base64.b64decode(value["payload"], validate=True)
        signatures = [
            (one["keyid"], base64.b64decode(one["sig"], validate=True))
            for one in value["signatures"][:_MOST_SIGNATURES]
        ]
        kind = value["payloadType"]
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise FleetError("its signature is no DSSE envelope") from error
    if kind != PAYLOAD_TYPE:
        raise FleetError("its signature is of another kind, or of a later version: upgrade kanoclip-edge")
    keys = {key.id: key for key in trusted}
    known = [(keys[number], signature) for number, signature in signatures if number in keys]
    if not known:
        names = ", ".join(str(number)[:19] for number, _ in signatures if is_one_line(str(number))) or "nobody"
        raise FleetError(f"it is signed by {names}, which --trust does not name")
    for key, signature in known:
        if key.verifies(_encoded(payload), signature):
            return _statement(payload), key
    raise FleetError(f"its signature is not {known[0][0].shown}'s: it was changed after it was signed")


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _statement(payload: bytes) -> Statement:
    try:
        value: dict[str, Any] = json.loads(payload)
        statement = Statement(**value)
        sane = (
            ADDRESS.fullmatch(statement.bundle) is not None
            and (statement.tag is None or isinstance(statement.tag, str))
            and isinstance(statement.name, str)
            and statement.time.tzinfo is not None
        )
    except (ValueError, TypeError, AttributeError):
        sane = False
    if not sane:
        raise FleetError("its signed statement is none that this version reads: upgrade kanoclip-edge")
    return statement
