"""Ed25519 keys, in the PEM files that openssl reads and writes too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.system.files.regular import read_small

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSWORD_VARIABLE = "KANOCLIP_KEY_PASSWORD"
_KEY_FILE_LIMIT = 1 << 20
_END = b"-----END PUBLIC KEY-----"


@dataclass(frozen=True)
class SigningKey:
    """A private key.

    Attributes:
        id: `sha256:` and the digest of its public key (DER, SubjectPublicKeyInfo).
        key: The key itself.
    """

    id: str
    key: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self.key.sign(message)


@dataclass(frozen=True)
class TrustedKey:
    """A public key whose bundles are taken.

    Attributes:
        id: As `SigningKey.id`.
        shown: The name of the file that it is from.
        key: The key itself.
    """

    id: str
    shown: str
    key: Ed25519PublicKey

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether this key signed a message."""
        from cryptography.exceptions import InvalidSignature

        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def require_cryptography() -> None:
    """Refuses to go on without it.

    Raises:
        FleetError: It is not installed.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise FleetError("keys and signatures need cryptography: pip install 'kanoclip-edge[fleet]'") from None


def make_keys(private: Path, public: Path) -> str:
    """Writes a new pair of keys; neither file may be there yet.

    The private one is readable by its owner alone, and encrypted where KANOCLIP_KEY_PASSWORD is set.

    Returns:
        The key's id.

    Raises:
        FleetError: A file is there already or cannot be written, or cryptography is not installed.
    """
    require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    password = os.environ.get(PASSWORD_VARIABLE, "").encode()
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    open_half = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for path, content, mode in ((private, secret, 0o600), (public, open_half, 0o644)):
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        except FileExistsError:
            raise FleetError(f"{path} is there already: name another, keys are never overwritten") from None
        except OSError as error:
            raise FleetError(f"{path} cannot be written ({error.strerror})") from error
    return _id(key.public_key())


def read_signing_key(path: Path) -> SigningKey:
    """Reads a private key, with the password in KANOCLIP_KEY_PASSWORD where it has one.

    Raises:
        FleetError: It cannot be read, is no Ed25519 key, or the password is missing or wrong.
    """
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    password = os.environ.get(PASSWORD_VARIABLE, "").encode() or None
    content = _read(path)
    try:
        key = serialization.load_pem_private_key(content, password)
    except TypeError:
        state = "is encrypted" if password is None else "is not encrypted"
        raise FleetError(f"{path} {state}: set {PASSWORD_VARIABLE} where it has a password") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = f", or {PASSWORD_VARIABLE} is wrong" if password else ""
        raise FleetError(f"{path} is no private key in PEM{hint}: kanoclip-bundle keygen makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FleetError(f"{path} is a key, but not Ed25519: kanoclip-bundle keygen makes one")
    return SigningKey(_id(key.public_key()), key)


def read_trusted_keys(paths: Sequence[Path]) -> tuple[TrustedKey, ...]:
    """Reads public keys; a file may hold several.

    Raises:
        FleetError: One cannot be read, holds none, or one that is not Ed25519.
    """
    if not paths:
        return ()
    require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    keys = []
    for path in paths:
        content = _read(path)
        if b"PRIVATE KEY" in content:
            raise FleetError(f"{path} is a private key, which no box should have: --trust takes the .pub file")
        parts = [part + _END for part in content.split(_END)[:-1]]
        if not parts:
            raise FleetError(
                f"{path} holds no public key in PEM: --trust takes the .pub file of kanoclip-bundle keygen"
            )
        for part in parts:
            try:
                key = serialization.load_pem_public_key(part.lstrip())
            except (ValueError, UnsupportedAlgorithm) as error:
                raise FleetError(f"{path} holds a damaged public key: copy it again") from error
            if not isinstance(key, Ed25519PublicKey):
                raise FleetError(f"{path} holds a key that is not Ed25519: kanoclip-bundle keygen makes one")
            keys.append(TrustedKey(_id(key), path.name, key))
    return tuple(keys)


def _read(path: Path) -> bytes:
    try:
        return read_small(path, _KEY_FILE_LIMIT)
    except OSError as error:
        raise FleetError(f"the key {path} cannot be read ({error.strerror})") from error


def _id(key: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(der).hexdigest()
