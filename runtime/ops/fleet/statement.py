"""What a signature says, and the envelope that holds both: DSSE, the form that in-toto and Sigstore sign."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from kanoclip.runtime.bundle.json_fields import is_one_line
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.address import ADDRESS
from kanoclip.runtime.ops.fleet.keys import SigningKey, TrustedKey

PAYLOAD_TYPE = "application/vnd.kanoclip.bundle.statement.v1+json"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
ENVELOPE_LIMIT = 64 << 10
_MOST_SIGNATURES = 16
SKEW = timedelta(hours=24)
"""By so much clocks may differ: of a machine without a battery, or in another time zone than it believes."""


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
        expires_at: The same, from which on it is not taken any more; None for never.
    """

    bundle: str
    name: str
    tag: str | None
    signed_at: str
    expires_at: str | None = None

    @property
    def time(self) -> datetime:
        """`signed_at` as a time."""
        return datetime.fromisoformat(self.signed_at)

    def check_times(self) -> None:
        """Refuses a signature of another time than now.

        Raises:
            FleetError: It expired, or is dated later than clocks differ: it would outlast all that are signed after it.
        """
        here = datetime.now(timezone.utc)
        if self.time > here + SKEW:
            raise FleetError(
                f"it was signed {self.signed_at}, which is in the future: by this machine's clock it is "
                f"{here.isoformat(timespec='seconds')}; set the clock that is wrong, and sign it again"
            )
        if self.expires_at is not None and here > datetime.fromisoformat(self.expires_at) + SKEW:
            raise FleetError(f"its signature expired {self.expires_at}: push it again")


def now(later: timedelta = timedelta(0)) -> str:
    """The time as a statement has it, or a later one."""
    return (datetime.now(timezone.utc) + later).isoformat(timespec="seconds")


def sign(statement: Statement, key: SigningKey) -> bytes:
    """An envelope: the statement and its signature, as JSON."""
    # Without what it does not have: earlier versions read it then.
    fields = {name: value for name, value in asdict(statement).items() if name != "expires_at" or value is not None}
    payload = json.dumps(fields, sort_keys=True).encode()
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


def signed_time(envelope: bytes, address: str) -> str | None:
    """When an envelope says that a bundle was signed; its signature was looked at when the bundle was pulled.

    Returns:
        None for what is no envelope of this bundle.
    """
    try:
        statement = _statement(base64.b64decode(json.loads(envelope)["payload"], validate=True))
    except (FleetError, ValueError, TypeError, KeyError, RecursionError, binascii.Error):
        return None
    return statement.signed_at if statement.bundle == address else None


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
            and (statement.expires_at is None or datetime.fromisoformat(statement.expires_at).tzinfo is not None)
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        sane = False
    if not sane:
        raise FleetError("its signed statement is none that this version reads: upgrade kanoclip-edge")
    return statement
