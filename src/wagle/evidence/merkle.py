"""A keyed Merkle tree over records: one root for a set, and a proof for each of its records.

A leaf is the HMAC-SHA-256 of a record under a key of its own, which is derived from the secret key
and the record's number. So the root gives nobody a way to test a guess at a record; and to prove
later that one record was in the set, only that record's key is handed over, which says nothing
about the others. Leaves and nodes are hashed with different prefixes (as in RFC 6962), so that a
node can never pass for a leaf.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wagle.data.records import Record
from wagle.system.errors import WagleError

_LEAF, _NODE = b"\0", b"\1"


@dataclass(frozen=True)
class Proof:
    """What proves that one record is in a set with a known root; private, like the record.

    Attributes:
        number: which of the records it is, from 0.
        count: how many records the set has.
        key: the key of this record alone, 64 hex digits.
        path: the digests beside the way from the leaf to the root, from the bottom.
    """

    number: int
    count: int
    key: str
    path: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The proof as JSON values."""
        return {**asdict(self), "path": list(self.path)}


def canonical(record: Record) -> bytes:
    """A record's content as bytes: its fields in the order of their names, as JSON in UTF-8.

    It does not depend on the file format, the names that the file gave its fields, the template or
    the tokenizer.
    """
    return json.dumps(record.content(), sort_keys=True, ensure_ascii=False).encode()


def record_key(key: bytes, number: int) -> bytes:
    """The key of one record, derived from the secret key of the set."""
    return hmac.new(key, b"record %d" % number, hashlib.sha256).digest()


def _leaf(record: Record, own_key: bytes) -> bytes:
    own = hmac.new(own_key, canonical(record), hashlib.sha256).digest()
    return hashlib.sha256(_LEAF + own).digest()


def _leaves(records: Sequence[Record], key: bytes) -> list[bytes]:
    if not records:
        raise WagleError("an empty set of records cannot be committed to")
    return [_leaf(record, record_key(key, i)) for i, record in enumerate(records)]


def _above(level: Sequence[bytes]) -> list[bytes]:
    """The next level of the tree; the last of an odd number moves up as it is."""
    made = [
        hashlib.sha256(_NODE + level[i] + level[i + 1]).digest()
        for i in range(0, len(level) - 1, 2)
    ]
    return made + ([level[-1]] if len(level) % 2 else [])


def root_of(records: Sequence[Record], key: bytes) -> str:
    """The root over records in their order, 64 hex digits.

    Raises:
        WagleError: there are no records.
    """
    level = _leaves(records, key)
    while len(level) > 1:
        level = _above(level)
    return level[0].hex()


def prove(records: Sequence[Record], key: bytes, number: int) -> Proof:
    """The proof that ``records[number]`` is in the set.

    Raises:
        WagleError: there is no such record.
    """
    if not 0 <= number < len(records):
        raise WagleError(f"there is no record {number}: the set has {len(records)}, counted from 0")
    level, at, path = _leaves(records, key), number, []
    while len(level) > 1:
        beside = at ^ 1
        if beside < len(level):
            path.append(level[beside].hex())
        level, at = _above(level), at // 2
    return Proof(number, len(records), record_key(key, number).hex(), tuple(path))


def proves(proof: Proof, record: Record, root: str) -> bool:
    """Whether a proof shows that a record is in the set with this root."""
    found, at, size, path = _leaf(record, bytes.fromhex(proof.key)), proof.number, proof.count, 0
    while size > 1:
        if at ^ 1 < size:
            if path >= len(proof.path):
                return False
            beside = bytes.fromhex(proof.path[path])
            pair = found + beside if at % 2 == 0 else beside + found
            found, path = hashlib.sha256(_NODE + pair).digest(), path + 1
        at, size = at // 2, (size + 1) // 2
    return path == len(proof.path) and hmac.compare_digest(found.hex(), root)
