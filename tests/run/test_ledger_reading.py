"""Ledgers that a stranger may have made: what does not fit is named in one line."""

import json

import pytest

from wagle.run.ledger import ledger_table, read_ledger, read_receipts
from wagle.system.errors import WagleError

ENTRY = {
    "schema": "wagle-ledger/1",
    "name": "tiny",
    "when": "2026-11-30T20:02:46+00:00",
    "wagle": "0.1.0",
    "after": None,
    "objective": {"name": "npo", "beta": 0.1},
    "training": {"epochs": 5},
    "mask": {"digest": "96", "ratio": 0.8, "count": 22656},
    "forget": {"n": 6, "digest": "6d"},
    "earlier": None,
    "base": "01073e42",
    "result": "50464b94",
    "patch": {"file": "patch.safetensors", "result": "50464b94"},
    "verdict": "leaks",
}
RECEIPT = {"schema": "wagle-purge/1", "when": "now", "deleted": [{"path": "base/"}]}


def ledger(folder, value):
    text = value if isinstance(value, str) else json.dumps(value)
    (folder / "ledger.json").write_text(text)
    return ledger_table(read_ledger(folder, broken=True), read_receipts(folder))


def test_a_sound_ledger_is_shown(tmp_path):
    assert "purged now: base/" in ledger(tmp_path, [ENTRY, RECEIPT])
    ledger(tmp_path, [{**ENTRY, "mask": None, "patch": None, "earlier": {"mode": "x", "n": 1}}])


@pytest.mark.parametrize("value", ["", "null", "3", "{}", "[]", '"x"', "[1]", "[[]]", "[" * 5000])
def test_what_is_no_ledger_is_refused(tmp_path, value):
    with pytest.raises(WagleError, match=r"ledger\.json") as caught:
        ledger(tmp_path, value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "new", "said"),
    [
        ("name", 3, "name"),
        ("when", None, "when"),
        ("after", [], "after"),
        ("objective", "npo", "objective"),
        ("objective", {}, "objective, name: field required"),
        ("training", [], "training"),
        ("mask", {"ratio": "x"}, "mask, digest: field required"),
        ("mask", {**ENTRY["mask"], "ratio": "0.8"}, "mask, ratio"),
        ("forget", {"n": "6", "digest": ""}, "forget, n"),
        ("earlier", 1, "earlier"),
        ("base", None, "base"),
        ("result", 5, "result"),
        ("patch", "x", "patch"),
        ("verdict", {}, "verdict"),
    ],
)
def test_an_entry_of_wrong_types_is_refused(tmp_path, key, new, said):
    with pytest.raises(WagleError) as caught:
        ledger(tmp_path, [{**ENTRY, key: new}])
    path = f"an entry of {tmp_path}/ledger.json was altered: {said}"
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "odd", [{"when": 3}, {"deleted": {}}, {"deleted": [{}]}, {"deleted": ["x"]}]
)
def test_a_receipt_of_wrong_types_is_refused(tmp_path, odd):
    with pytest.raises(WagleError, match=r"^a receipt in .*ledger\.json was altered: "):
        ledger(tmp_path, [ENTRY, {**RECEIPT, **odd}])


def test_a_format_of_any_kind_is_shown_in_one_line(tmp_path):
    with pytest.raises(WagleError) as caught:
        ledger(tmp_path, [{**ENTRY, "schema": ["x\n" * 999]}])
    assert "\n" not in str(caught.value)


def test_a_broken_chain_is_told_in_one_line_whatever_stands_there(tmp_path):
    """Found by bench.fuzz: ledger:1006."""
    (tmp_path / "ledger.json").write_text(
        json.dumps([ENTRY, {**ENTRY, "name": "x\ny", "base": "a\nb"}])
    )
    with pytest.raises(WagleError, match="is broken") as caught:
        read_ledger(tmp_path)
    assert "\n" not in str(caught.value)
