"""The commands of evidence: what they write, print and exit with."""

import json
import shutil

import pytest
import typer
import yaml

from tests.evidence.conftest import NONCE, home  # noqa: F401  a fixture
from wagle.cli import app as cli
from wagle.evidence.commitment import digest_of, read_commitment
from wagle.system.errors import WagleError


def code_of(*arguments):
    """The exit code of a command."""
    try:
        found = cli.app(args=[*map(str, arguments)], standalone_mode=False)
    except typer.Exit as end:
        return end.exit_code
    return found or 0


def test_the_whole_way_from_a_commitment_to_a_purge(home, tmp_path, inside, capsys):  # noqa: F811
    run, key, pack = tmp_path / "run", tmp_path / "maker.pem", tmp_path / "pack.zip"
    shutil.copytree(home / "run", run)
    for name in ("commitment.json", "private/commitment.secret"):
        (run / name).unlink()
    said = inside("commit", run, "--probes", 4)
    assert digest_of(read_commitment(run / "commitment.json")) in said
    assert "private/commitment.secret" in said
    assert "maker.pem.pub" in inside("evidence", "--new-key", key)
    assert "after the fact" in inside("evidence", run, "-o", pack, "--key", key)
    given = ["--model", run / "model", "--forget", home / "forget.json", "--base", run / "base"]
    given += ["--secret", run / "private" / "commitment.secret", "--nonce", NONCE]
    assert code_of("audit", pack, *given) == 0
    assert "confirmed     no leak found" in capsys.readouterr().out
    assert code_of("audit", pack, *given[:-2], "--nonce", "another nonce", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["outcome"]) == ("wagle-audit/1", "confirmed")
    assert code_of("audit", pack, "--model", home / "other") == 1
    assert "refused       --model" in capsys.readouterr().out
    assert code_of("audit", pack) == 3
    with pytest.raises(WagleError, match="there is no pack"):
        code_of("audit", tmp_path / "none")
    assert "would delete  private/" in inside("purge", run, "--dry-run")
    assert (run / "private").is_dir()
    assert "deleted       private/" in inside("purge", run)
    assert "nothing to purge" in inside("purge", run)
    assert "purged " in inside("ledger", run)
    receipt = json.loads(inside("ledger", run, "--json"))[-1]
    assert receipt["schema"] == "wagle-purge/1"


def test_a_purge_that_leaves_texts_exits_with_1(home, tmp_path, capsys):  # noqa: F811
    shutil.copytree(home / "run", tmp_path / "run")
    shutil.copy(home / "forget.json", tmp_path / "run" / "mine.json")
    assert code_of("purge", tmp_path / "run") == 1
    assert "mine.json still holds text of records" in capsys.readouterr().out


def test_a_commitment_to_a_recipe_or_to_a_model_is_written_where_it_is_wanted(
    home,  # noqa: F811
    tmp_path,
    inside,
):
    inside("commit", home / "model", "--forget", home / "forget.json", "-o", tmp_path / "m.json")
    assert (tmp_path / "commitment.secret").stat().st_mode & 0o777 == 0o600
    recipe = yaml.safe_load((home / "run" / "recipe.yaml").read_text())
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    out = ("-o", tmp_path / "r.json", "--secret", tmp_path / "r.secret")
    inside("commit", tmp_path / "recipe.yml", *out)
    told = read_commitment(tmp_path / "r.json")
    assert told["base"]["role"] == "start"
    assert told["recipe"] == read_commitment(home / "run" / "commitment.json")["recipe"]


def test_what_is_missing_is_said(home, tmp_path):  # noqa: F811
    for arguments, message in (
        (("evidence",), "make a key with --new-key"),
        (("evidence", home / "run"), "give -o PACK and --key FILE"),
        (("evidence", home / "run", "--key", "a", "--new-key", "b"), "not both"),
        (("commit", tmp_path / "none.yaml"), "none.yaml"),
    ):
        with pytest.raises(WagleError, match=message):
            code_of(*arguments)
