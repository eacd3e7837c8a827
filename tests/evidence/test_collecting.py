"""From a run to a pack: what is in it, and that no record, path or secret is."""

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
import yaml

from tests.evidence.conftest import CANARIES
from wagle.data.reading import read_records
from wagle.evidence.collecting import AFTER, BEFORE, collect_evidence
from wagle.evidence.deletion.sweeping import Sweep, texts_of
from wagle.evidence.pack import PARTS, read_pack
from wagle.evidence.reducing import reduced_recipe
from wagle.recipe.reading import load_recipe
from wagle.system.errors import WagleError


def test_a_pack_holds_what_the_page_promises(home):
    files = read_pack(home / "pack")
    assert set(PARTS) <= set(files)
    claim = json.loads(files["claim.json"])
    assert claim["verdict"] == "no leak found by these probes"
    assert claim["commitment"]["when"] == BEFORE
    assert claim["patch"]["sha256"]
    assert claim["models"]["reference"]
    assert claim["not_claimed"]
    for name in ("CLAIM.md", "LIMITS.md"):
        assert b"that nothing is left" in files[name].lower()
    assert claim["models"]["result"].encode() in files["reproduce.sh"]


def test_no_record_no_path_and_no_secret_is_in_a_pack(home):
    records = [r for n in ("forget", "retain") for r in read_records(home / f"{n}.json")]
    sweep = Sweep([*texts_of(records), *CANARIES])
    salts = [(home / "run" / "private" / name).read_text().strip() for name in ("salt",)]
    secrets = [str(home), (home / "secret").read_text().strip(), *salts, *(r.id for r in records)]
    for name, data in read_pack(home / "pack").items():
        assert not sweep.finds(data), name
        for secret in secrets:
            assert secret.encode() not in data, (name, secret)


def test_a_recipe_is_reduced_to_names_before_and_after_alike():
    given = {
        "name": "tiny",
        "model": "/home/alice/models/chat",
        "forget": {"source": ["/data/smith/a.jsonl", "b/c.csv"]},
        "retain": "demo:retain",
        "reference": "untaught",
        "finetune": {"records": "owner/set"},
        "attacks": [{"name": "probe", "settings": {"groups": {"forget[0]": "Ada Holm"}}}],
    }
    told = yaml.safe_load(reduced_recipe(load_recipe(given)))
    assert told["model"]["path"] == "chat"
    assert told["forget"]["source"] == ["a.jsonl", "c.csv"]
    assert (told["retain"]["source"], told["reference"]) == ("demo:retain", "untaught")
    assert told["finetune"]["records"]["source"] == "owner/set"
    assert told["attacks"][0]["settings"]["groups"] == "of 1 records"


def test_results_of_what_is_served_of_attacks_and_of_controls_are_taken(home, run_copy, tmp_path):
    path = "/srv/models/served.gguf"
    for name in (
        "evaluation/served-q4_k_m.json",
        "attacks/probe.json",
        "deploy/nf4.json",
        "controls/random/evaluation/after.json",
    ):
        (run_copy / name).parent.mkdir(parents=True, exist_ok=True)
        (run_copy / name).write_text(json.dumps({"model": {"path": path}, "answers": "private/x"}))
    collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem")
    files = read_pack(tmp_path / "pack")
    for name in (
        "evaluation/served-q4_k_m.json",
        "attacks/probe.json",
        "deploy/nf4.json",
        "controls/random/evaluation/after.json",
    ):
        assert json.loads(files[name]) == {"model": {"path": "…/served.gguf"}}


def test_a_commitment_is_made_where_there_is_none_and_the_claim_says_so(home, run_copy, tmp_path):
    (run_copy / "commitment.json").unlink()
    (run_copy / "private" / "commitment.secret").unlink()
    claim = collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem")
    assert claim["commitment"]["when"] == AFTER
    assert (run_copy / "private" / "commitment.secret").stat().st_mode & 0o777 == 0o600
    assert b"after the fact" in read_pack(tmp_path / "pack")["CLAIM.md"]
    again = collect_evidence(run_copy, tmp_path / "again", key=home / "maker.pem")
    assert again["commitment"]["when"] == AFTER  # its time says so


def test_a_commitment_counts_as_before_only_if_the_model_was_written_later(
    home, run_copy, tmp_path
):
    early = datetime.now(timezone.utc) - timedelta(days=1)
    weights = run_copy / "model" / "model.safetensors"
    os.utime(weights, (early.timestamp(), early.timestamp()))
    claim = collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem")
    assert claim["commitment"]["when"] == AFTER


def test_a_commitment_to_something_else_is_refused(home, run_copy, tmp_path):
    def collect(**given):
        return collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem", **given)

    told = json.loads((run_copy / "commitment.json").read_text())
    other = tmp_path / "other.json"
    shutil.copy(home / "secret", tmp_path / "commitment.secret")
    for change, message in (
        ({"recipe": "0" * 64}, "made for another recipe"),
        ({"base": {"role": "base", "fingerprint": "0" * 64}}, "made for the model 000000"),
        ({"forget": {**told["forget"], "root": "0" * 64}}, "made for another forget set"),
    ):
        other.write_text(json.dumps({**told, **change}))
        with pytest.raises(WagleError, match=message):
            collect(commitment=other)
    with pytest.raises(WagleError, match="does not exist; it is the commitment's secret key"):
        collect(secret=tmp_path / "none")


def test_only_a_finished_run_gives_evidence(home, run_copy, tmp_path):
    (run_copy / "ledger.json").unlink()
    with pytest.raises(WagleError, match="not a finished run"):
        collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem")


def test_the_script_is_one_and_asks_for_the_data(home):
    done = subprocess.run(["sh", "reproduce.sh"], cwd=home / "pack", capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "usage: sh reproduce.sh DATA [OUT]\n"
