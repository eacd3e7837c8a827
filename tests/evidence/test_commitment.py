"""Commitments: what they bind, what they hide, and how they are read."""

import json

import pytest

from tests.conftest import RECORDS
from tests.evidence.conftest import CANARIES
from wagle.data.reading import read_records
from wagle.evidence.commitment import (
    checked_commitment,
    commit_model,
    commit_recipe,
    digest_of,
    read_commitment,
    read_secret,
    write_commitment,
)
from wagle.evidence.merkle import root_of
from wagle.model.weights import fingerprint
from wagle.recipe.reading import load_recipe
from wagle.system.errors import Refused, WagleError


def test_a_commitment_names_the_model_the_records_and_the_recipe_without_showing_them(home):
    recipe = load_recipe(home / "run" / "recipe.yaml")
    made = commit_recipe(recipe, home / "run")
    told = made.commitment
    records = read_records(home / "forget.json")
    assert told["forget"]["root"] == root_of(records, made.key)
    assert told["base"] == {"role": "base", "fingerprint": fingerprint(home / "run" / "base")}
    text = json.dumps(told, ensure_ascii=False)
    for secret in (*CANARIES, *(r.id for r in records), made.key.hex(), str(home)):
        assert secret not in text


def test_before_teaching_a_commitment_names_the_model_that_the_run_starts_from(home, tmp_path):
    recipe = load_recipe(home / "run" / "recipe.yaml")
    told = commit_recipe(recipe, tmp_path / "not-yet").commitment
    assert told["base"] == {"role": "start", "fingerprint": fingerprint(home / "model")}


def test_two_commitments_to_the_same_share_nothing_that_could_be_tested(home):
    recipe = load_recipe(home / "run" / "recipe.yaml")
    one, other = (commit_recipe(recipe, home / "run") for _ in range(2))
    assert one.key != other.key
    assert one.commitment["forget"]["root"] != other.commitment["forget"]["root"]
    assert one.commitment["recipe"] == other.commitment["recipe"]


def test_a_model_and_records_are_committed_to_without_a_recipe(home):
    made = commit_model(str(home / "model"), [str(home / "forget.json")], probes=3)
    told = made.commitment
    assert told["recipe"] is None
    assert told["forget"]["n"] == len(RECORDS)
    assert told["protocol"]["probes"] == 3
    assert told["base"]["fingerprint"] == fingerprint(home / "model")


def test_the_secret_is_private_and_neither_file_is_ever_replaced(home, tmp_path):
    made = commit_model(str(home / "model"), [str(home / "forget.json")])
    out, secret = tmp_path / "c.json", tmp_path / "c.secret"
    write_commitment(made, out, secret)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert read_secret(secret) == made.key
    assert digest_of(read_commitment(out)) == digest_of(made.commitment)
    with pytest.raises(WagleError, match="never replaced"):
        write_commitment(made, tmp_path / "d.json", secret)
    with pytest.raises(WagleError, match="never replaced"):
        write_commitment(made, out, tmp_path / "d.secret")


def test_the_digest_does_not_depend_on_the_layout_of_the_file(home, tmp_path):
    told = read_commitment(home / "run" / "commitment.json")
    (tmp_path / "c.json").write_text(json.dumps(dict(reversed(told.items()))))
    assert digest_of(read_commitment(tmp_path / "c.json")) == digest_of(told)


def test_a_secret_that_is_none_is_named(tmp_path):
    with pytest.raises(WagleError, match="does not exist"):
        read_secret(tmp_path / "none")
    for text in ("word", "ab"):
        (tmp_path / "short").write_text(text)
        with pytest.raises(WagleError, match="64 hex digits"):
            read_secret(tmp_path / "short")


def test_a_commitment_with_more_less_or_other_content_is_refused(home):
    told = read_commitment(home / "run" / "commitment.json")
    with pytest.raises(Refused, match="'probes' missing or added"):
        checked_commitment({**told, "probes": ["forget[0]"]})
    with pytest.raises(Refused, match="'recipe' missing or added"):
        checked_commitment({k: v for k, v in told.items() if k != "recipe"})
    with pytest.raises(Refused, match="not a commitment"):
        checked_commitment({**told, "schema": "wagle-commitment/2"})
    with pytest.raises(Refused, match="not in their format"):
        checked_commitment({**told, "thresholds": {"interval": "99 %"}})
    with pytest.raises(Refused, match="not in their format"):
        checked_commitment({**told, "forget": {"n": 6}})
