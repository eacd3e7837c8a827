"""The audit of a real run: its record, the page that shows it, and the page's example."""

import json
import re
from pathlib import Path

from bench.audit import Table, as_markdown, edit, given, half

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "evidence.md").read_text()
FOUND = json.loads((ROOT / "bench" / "measured" / "audit.json").read_text())


def test_the_page_shows_the_record():
    assert as_markdown(FOUND) in PAGE


def test_the_true_pack_was_confirmed_from_a_clone_and_six_forgeries_refused_with_one_line_each():
    audits = FOUND["audits"]
    assert all(one["right"] for one in audits.values())
    forged = {name: one for name, one in audits.items() if name[0].isdigit()}
    assert sorted(name[0] for name in forged) == list("123456")
    assert {one["outcome"] for one in forged.values()} == {"refused"}
    assert all("\n" not in one["reason"] for one in forged.values())
    assert len(FOUND["commit"]) == 40
    assert "/tmp" not in json.dumps(FOUND)


def test_the_example_of_the_page_runs():
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(snippet, "evidence.md", "exec"), {})


def test_an_auditor_is_given_everything_but_what_is_left_out(tmp_path):
    told = [str(word) for word in given(Table(tmp_path), base=None)]
    assert "--base" not in told
    assert told[:2] == ["--model", str(tmp_path / "model")]
    assert len(told[told.index("--nonce") + 1]) == 32


def test_an_edited_evaluation_is_consistent_in_itself(tmp_path):
    figure = {"value": 0.5, "per_record": {"forget[0]": 0.25, "forget[1]": 0.75}}
    (tmp_path / "a.json").write_text(json.dumps({"metrics": {"forget.probability": figure}}))
    edit("a.json", half)(tmp_path)
    changed = json.loads((tmp_path / "a.json").read_text())["metrics"]["forget.probability"]
    assert changed == {"value": 0.25, "per_record": {"forget[0]": 0.125, "forget[1]": 0.375}}
