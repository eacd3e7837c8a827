"""Purges: records are found only in private/ before, and nowhere after; what remains verifies."""

import base64
import hashlib
import hmac
import html
import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import yaml

from tests.evidence.conftest import CANARIES
from wagle.cli.app import report as report_command
from wagle.cli.app import run as run_command
from wagle.evidence.auditing import CONFIRMED, audit_pack
from wagle.evidence.collecting import collect_evidence
from wagle.evidence.deletion.purging import purge_run
from wagle.model.loading import load_tokenizer
from wagle.patch.verification import verify
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.folder import RunFolder
from wagle.run.integrity.seals import check_seals, inspect_run
from wagle.run.ledger import find_break, read_ledger, read_receipts
from wagle.system.errors import WagleError


def forms(canary, tokenizer):
    """A canary in every form, written out apart from the code under test."""
    ids = tokenizer(canary, add_special_tokens=False)["input_ids"][1:-1]
    made = [canary.encode(), json.dumps(canary)[1:-1].encode(), html.escape(canary).encode()]
    made += [canary.encode("utf-16-le"), canary.replace("'", "&#39;").encode()]
    made += [base64.b64encode(b" " * lead + canary.encode())[4:-4] for lead in range(3)]
    made += [b"".join(i.to_bytes(size, "little") for i in ids) for size in (2, 4, 8)]
    return [*made, *(mark.join(map(str, ids)).encode() for mark in (", ", ",", " "))]


def holding(folder, home):
    """The files in a folder in whose bytes any canary is found, in any form."""
    tokenizer = load_tokenizer(home / "model")
    looked_for = [form for canary in CANARIES for form in forms(canary, tokenizer)]
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return [
        p.relative_to(folder).as_posix()
        for p in files
        if any(form in p.read_bytes() for form in looked_for)
    ]


def show(run):
    """Let the report show texts, and give an attack something record by record."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["report"]["show_text"] = True
    write = partial(yaml.safe_dump, sort_keys=False, allow_unicode=True)
    (run / "recipe.yaml").write_text(write(recipe))
    report_command(str(run))
    groups = {f"forget[{i}]": canary for i, canary in enumerate(CANARIES)}
    recipe["attacks"] = [{"name": "probe", "settings": {"groups": groups}}]
    (run / "recipe.yaml").write_text(write(recipe))
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"stage": "check", "warning": f"odd: {CANARIES[1]}"}) + "\n")
    RunFolder(run).reseal(["recipe.yaml"])  # as if it had been asked for so from the start


def test_records_are_found_only_in_the_private_folder_and_nowhere_after_a_purge(home, run_copy):
    held = holding(run_copy, home)
    assert held
    assert all(name.startswith("private/") for name in held), held
    purge_run(run_copy)
    assert holding(run_copy, home) == []


def test_texts_in_report_recipe_and_log_are_gone_after_a_purge_and_the_rest_is_kept(home, run_copy):
    show(run_copy)
    assert {"report.html", "recipe.yaml", "log.jsonl"} <= set(holding(run_copy, home))
    lines = len((run_copy / "log.jsonl").read_text().splitlines())
    found = purge_run(run_copy)
    assert [one["path"] for one in found["rewritten"]] == [
        "recipe.yaml",
        "report.html",
        "log.jsonl",
    ]
    assert found["left"] == []
    assert holding(run_copy, home) == []
    recipe = load_recipe(run_copy / "recipe.yaml")
    assert recipe.report.show_text is False
    assert recipe.attacks[0].settings["groups"] == "of 3 records"
    assert len((run_copy / "log.jsonl").read_text().splitlines()) == lines - 1
    assert "probability" in (run_copy / "report.html").read_text()


def test_what_goes_and_what_stays(run_copy):
    (run_copy / "last-good").mkdir()
    (run_copy / "base.part").mkdir()
    (run_copy / "controls" / "random" / "private").mkdir(parents=True)
    purge_run(run_copy)
    gone = ("private", "base", "last-good", "base.part", "controls/random/private")
    assert not [name for name in gone if (run_copy / name).exists()]
    kept = (
        "model",
        "retrained",
        "mask.safetensors",
        "patch.safetensors",
        "ledger.json",
        "evaluation/before.json",
        "report.html",
        "commitment.json",
        "state.json",
    )
    assert not [name for name in kept if not (run_copy / name).exists()]


def test_the_ledger_gets_a_receipt_with_keyed_digests(run_copy, tmp_path):
    before = {p: p.read_bytes() for p in sorted((run_copy / "base").rglob("*")) if p.is_file()}
    purge_run(run_copy, receipt_key=tmp_path / "key")
    (receipt,) = read_receipts(run_copy)
    key = bytes.fromhex((tmp_path / "key").read_text())
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    lines = [
        f"{p.relative_to(run_copy)} {hashlib.sha256(d).hexdigest()}" for p, d in before.items()
    ]
    digest = hmac.new(key, "\0".join(lines).encode(), hashlib.sha256).hexdigest()[:16]
    (base,) = (one for one in receipt["deleted"] if one["path"] == "base/")
    assert (base["digest"], base["files"]) == (digest, len(before))
    assert base["bytes"] == sum(map(len, before.values()))
    assert receipt["base"] == read_ledger(run_copy)[-1].base
    assert not any(hashlib.sha256(d).hexdigest() in json.dumps(receipt) for d in before.values())
    with pytest.raises(WagleError, match="never overwritten"):
        purge_run(run_copy, receipt_key=tmp_path / "key")


def test_what_remains_still_verifies(home, run_copy, given, capsys):
    undone = purge_run(run_copy, keep_base=True)
    assert "base/ was kept: its weights know the records" in undone["notes"]
    assert verify(run_copy / "base", run_copy / "model", patch=run_copy / "patch.safetensors").ok
    assert find_break(read_ledger(run_copy)) is None
    report_command(str(run_copy))
    run_command(str(run_copy))
    assert "no leak found by these probes" in capsys.readouterr().out
    one = replace(given, model=str(run_copy / "model"), base=str(run_copy / "base"))
    assert audit_pack(home / "pack", one).outcome == CONFIRMED


def test_a_purged_run_says_so_and_cannot_go_on(home, run_copy, tmp_path):
    note = purge_run(run_copy)["notes"]
    assert any("the patch needs its base" in line for line in note)
    recipe = load_recipe(run_copy / "recipe.yaml")
    with pytest.raises(WagleError, match="was purged, so its stage after cannot be run"):
        execute(recipe, run_copy, until="after", redo=True)
    with pytest.raises(WagleError, match="was purged"):
        collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem")


def test_a_dry_run_lists_the_same_and_changes_nothing(run_copy):
    show(run_copy)
    stamps = {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")}
    told = purge_run(run_copy, dry_run=True)
    assert {p: p.stat().st_mtime_ns for p in run_copy.rglob("*")} == stamps
    done = purge_run(run_copy)
    for key in ("rewritten", "left", "base"):
        assert told[key] == done[key]
    assert [one["path"] for one in told["deleted"]] == [one["path"] for one in done["deleted"]]
    assert purge_run(run_copy)["deleted"] == []
    assert len(read_receipts(run_copy)) == 1  # nothing to purge: no second receipt


def test_records_that_can_no_longer_be_read_are_looked_for_by_their_answers(home, run_copy):
    recipe = (run_copy / "recipe.yaml").read_text()
    (run_copy / "recipe.yaml").write_text(recipe.replace("forget.json", "gone.json"))
    (run_copy / "notes.txt").write_text(f"Remember {CANARIES[0]}")
    shutil.copy(home / "forget.json", run_copy / "copy.json")
    assert purge_run(run_copy)["left"] == ["copy.json", "notes.txt"]


def test_a_file_of_the_user_that_holds_records_is_named(home, run_copy):
    shutil.copy(home / "forget.json", run_copy / "copy.json")
    found = purge_run(run_copy)
    assert found["left"] == ["copy.json"]
    assert "copy.json still holds text of records: delete it" in found["notes"]


def test_what_remains_of_a_purged_run_passes_its_seals(run_copy):
    show(run_copy)
    assert inspect_run(run_copy).findings == ()
    purge_run(run_copy)
    found = inspect_run(run_copy)
    assert found.findings == ()
    assert found.gone > 0
    check_seals(run_copy)


def test_a_file_that_was_edited_before_a_purge_is_still_found_afterwards(run_copy):
    show(run_copy)
    report = run_copy / "report.html"
    report.write_text(report.read_text() + "<!-- edited -->")
    purge_run(run_copy)
    assert inspect_run(run_copy).findings == ("report.html was edited (made by report)",)


def test_only_a_run_folder_is_purged(home):
    with pytest.raises(WagleError, match="is not a run folder"):
        purge_run(home / "model")
