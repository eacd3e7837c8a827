"""Keys, signatures, and what a signature is worth."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wagle.evidence.signing import (
    key_name,
    new_key,
    public_path,
    public_text,
    read_key,
    read_public,
    sign,
    signed_root,
)
from wagle.system.errors import Refused, WagleError

ROOT = "ab" * 32


@pytest.fixture
def key(tmp_path):
    new_key(tmp_path / "maker.pem")
    return tmp_path / "maker.pem"


def test_a_new_key_is_private_and_never_overwritten(key):
    assert key.stat().st_mode & 0o777 == 0o600
    assert read_public(public_path(key)) == public_text(read_key(key)).encode()
    with pytest.raises(WagleError, match="never overwritten"):
        new_key(key)


def test_what_is_signed_is_the_encoding_of_dsse(key):
    """Checked with the library alone, as a stranger would."""
    envelope = sign(ROOT, read_key(key))
    payload = base64.b64decode(envelope["payload"])
    kind = b"application/vnd.in-toto+json"
    told = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    public = serialization.load_pem_public_key(public_path(key).read_bytes())
    public.verify(signature, told)
    assert json.loads(payload)["subject"][0]["digest"] == {"sha256": ROOT}
    assert envelope["signatures"][0]["keyid"] == key_name(public_path(key).read_bytes())


def test_a_signature_names_the_root_that_it_signs(key):
    assert signed_root(sign(ROOT, read_key(key)), public_path(key).read_bytes()) == ROOT


def test_a_signature_by_another_key_or_over_another_payload_is_refused(key, tmp_path):
    new_key(tmp_path / "other.pem")
    public, envelope = public_path(key).read_bytes(), sign(ROOT, read_key(key))
    with pytest.raises(Refused, match="not by the key"):
        signed_root(sign(ROOT, read_key(tmp_path / "other.pem")), public)
    moved = {**envelope, "payload": sign("cd" * 32, read_key(key))["payload"]}
    with pytest.raises(Refused, match="not by the key"):
        signed_root(moved, public)
    for broken in ({}, {**envelope, "payload": "%"}, {**envelope, "payloadType": "text"}):
        with pytest.raises(Refused, match="not the signature of a pack"):
            signed_root(broken, public)


def test_files_that_hold_no_such_key_are_named(key, tmp_path):
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    for path in (locked, public_path(key)):
        with pytest.raises(WagleError, match="not an Ed25519 private key"):
            read_key(path)
    with pytest.raises(WagleError, match="not an Ed25519 public key"):
        read_public(key)
    with pytest.raises(WagleError, match="cannot read the key"):
        read_key(tmp_path / "none.pem")


def test_a_key_of_an_unknown_kind_is_refused_in_one_line(tmp_path):
    """Found by bench.fuzz: pack:1069. The object identifier's last byte names the kind."""
    new_key(tmp_path / "a.pem")
    odd = tmp_path / "odd.pem"
    for path, use in ((tmp_path / "a.pem.pub", key_name), (tmp_path / "a.pem", None)):
        head, body, tail = path.read_text().strip().split("\n")
        raw = base64.b64decode(body).replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x75\x70")
        odd.write_text("\n".join([head, base64.b64encode(raw).decode(), tail]))
        with pytest.raises(WagleError, match="is not an Ed25519"):
            use(odd.read_bytes()) if use else read_key(odd)
