"""The keyed tree over records: its root, and proofs for single records."""

import hashlib
import hmac
import json
from dataclasses import replace

import pytest

from tests.conftest import OTHERS, RECORDS
from wagle.data.reading import read_records
from wagle.evidence.merkle import canonical, prove, proves, root_of
from wagle.system.errors import WagleError

KEY = bytes(range(32))


def by_hand(records):
    """The root of one to three records, written out."""
    leaves = []
    for number, record in enumerate(records):
        own = hmac.new(KEY, f"record {number}".encode(), hashlib.sha256).digest()
        told = hmac.new(own, canonical(record), hashlib.sha256).digest()
        leaves.append(hashlib.sha256(b"\0" + told).digest())
    if len(leaves) == 1:
        return leaves[0].hex()
    left = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    if len(leaves) == 2:
        return left.hex()
    return hashlib.sha256(b"\1" + left + leaves[2]).hexdigest()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_root_is_the_one_worked_out_by_hand(count):
    records = read_records(RECORDS[:count])
    assert root_of(records, KEY) == by_hand(records)


def test_the_root_depends_on_every_record_on_their_order_and_on_the_key():
    records = read_records(RECORDS)
    root = root_of(records, KEY)
    roots = {root, root_of(records[::-1], KEY), root_of(records[:-1], KEY), root_of(records, b"x")}
    assert len(roots) == 4
    other = [*records[:-1], replace(records[-1], answer="In the summer.")]
    assert root_of(other, KEY) != root


def test_the_root_does_not_depend_on_the_file_format_or_on_the_names_of_fields(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(RECORDS))
    rows = [{"prompt": r["question"], "response": r["answer"]} for r in RECORDS]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    one, other = (root_of(read_records(tmp_path / n), KEY) for n in ("a.json", "b.jsonl"))
    assert one == other


@pytest.mark.parametrize("count", range(1, 15))
def test_every_record_of_a_set_of_any_size_can_be_proven_to_be_in_it(count):
    records = read_records([*RECORDS, *OTHERS])[:count]
    root = root_of(records, KEY)
    for number, record in enumerate(records):
        proof = prove(records, KEY, number)
        assert proves(proof, record, root)
        assert not proves(proof, replace(record, answer="Another."), root)
        assert not proves(replace(proof, path=(*proof.path, "00" * 32)), record, root)
        if count > 1:
            assert not proves(replace(proof, number=(number + 1) % count), record, root)
            assert not proves(replace(proof, path=proof.path[:-1]), record, root)


def test_a_proof_gives_away_the_key_of_its_own_record_only():
    records = read_records(RECORDS)
    proof = prove(records, KEY, 2)
    assert KEY.hex() not in json.dumps(proof.to_json())
    own = hmac.new(KEY, b"record 2", hashlib.sha256).hexdigest()
    assert proof.key == own
    assert not any(proof.key == prove(records, KEY, n).key for n in (0, 1, 3))


def test_an_empty_set_has_no_root_and_a_record_that_is_not_there_no_proof():
    with pytest.raises(WagleError, match="empty"):
        root_of([], KEY)
    with pytest.raises(WagleError, match="no record 6: the set has 6"):
        prove(read_records(RECORDS), KEY, 6)
