"""Signatures of packs: Ed25519 over an in-toto statement, in a DSSE envelope.

The envelope is the one that in-toto and Sigstore use: what is signed is the pre-authentication
encoding of the payload, ``DSSEv1 LEN(type) type LEN(payload) payload``. The payload names one
subject, the pack, by the root digest of its manifest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.system.errors import Refused, WagleError
from wagle.system.files.atomic import write_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "wagle-evidence/1"


def _cryptography() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise WagleError(
            "signatures need cryptography, which is not installed: pip install 'wagle[evidence]'"
        ) from None
    return serialization, ed25519


def new_key(path: str | Path) -> None:
    """Write a new private key as PEM, mode 0600, and its public key beside it (``.pub``).

    Raises:
        WagleError: the file exists, or cryptography is not installed.
    """
    path = Path(path)
    if path.exists():
        raise WagleError(f"{path} exists; a key is never overwritten: name another file")
    coding, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        coding.Encoding.PEM, coding.PrivateFormat.PKCS8, coding.NoEncryption()
    ).decode()
    write_text(path, text, private=True)
    write_text(public_path(path), public_text(key))


def public_path(path: str | Path) -> Path:
    """Where ``new_key`` writes the public key."""
    path = Path(path)
    return path.with_name(path.name + ".pub")


def read_key(path: str | Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        WagleError: the file is not there, is no such key, or is protected by a password.
    """
    coding, ed25519 = _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        found: Any = coding.load_pem_private_key(_bytes(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise WagleError(
            f"{path} is not an Ed25519 private key in PEM without a password; make one: wagle "
            "evidence --new-key FILE"
        )
    key: Ed25519PrivateKey = found
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key that belongs to a private one, as PEM."""
    coding, _ = _cryptography()
    made: bytes = key.public_key().public_bytes(
        coding.Encoding.PEM, coding.PublicFormat.SubjectPublicKeyInfo
    )
    return made.decode()


def key_name(public: bytes) -> str:
    """The name of a public key: SHA-256 of its 32 bytes.

    Raises:
        WagleError: this is no such key.
    """
    return hashlib.sha256(_raw(public)).hexdigest()


def _raw(public: bytes) -> bytes:
    coding, _ = _cryptography()
    raw: bytes = _public(public).public_bytes(coding.Encoding.Raw, coding.PublicFormat.Raw)
    return raw


def _public(text: bytes) -> Any:
    coding, ed25519 = _cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        found = coding.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise WagleError("this is not an Ed25519 public key in PEM")
    return found


def read_public(path: str | Path) -> bytes:
    """Read a public key file, checked.

    Raises:
        WagleError: the file is not there or holds no such key.
    """
    found = _bytes(path)
    try:
        _raw(found)
    except WagleError:
        raise WagleError(f"{path} is not an Ed25519 public key in PEM") from None
    return found


def _bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise WagleError(f"cannot read the key {path}: {error.strerror}") from None


def _encoded(payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE, version 1."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(root: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope that signs the root digest of a manifest, as JSON values."""
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": "manifest.json", "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {},
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    signed = base64.b64encode(key.sign(_encoded(payload))).decode()
    name = key_name(public_text(key).encode())
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": name, "sig": signed}],
    }


def signed_root(envelope: Mapping[str, Any], public: bytes) -> str:
    """The root digest that an envelope signs, if its signature is by this key.

    Raises:
        Refused: the envelope is damaged, or the signature is not by this key.
    """
    key = _public(public)
    from cryptography.exceptions import InvalidSignature

    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        kind, statement = envelope["payloadType"], json.loads(payload)
        root = statement["subject"][0]["digest"]["sha256"]
        sound = kind == PAYLOAD_TYPE and statement["predicateType"] == PREDICATE
    except (KeyError, IndexError, TypeError, ValueError, RecursionError, binascii.Error):
        sound, root, payload, signature = False, "", b"", b""
    if not sound or not isinstance(root, str):
        raise Refused("signature.json is not the signature of a pack of evidence")
    try:
        key.verify(signature, _encoded(payload))
    except InvalidSignature:
        raise Refused(
            f"the signature is not by the key {key_name(public)[:12]}: it was altered, or made "
            "by somebody else"
        ) from None
    return root
