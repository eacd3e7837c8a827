"""A run whose model never knew the records: it stops before anything is made, and says why."""

import json

import pytest

from tests.conftest import OTHERS, make_model, make_tokenizer
from tests.evaluation.knowing.conftest import ROWS
from wagle.cli import app as cli
from wagle.recipe.reading import load_recipe
from wagle.report.text.run import summary_json, summary_table
from wagle.run.execution import execute
from wagle.run.stages.measuring import knowing
from wagle.run.stages.table import STAGES

MADE = ("mask.safetensors", "patch.safetensors", "model", "private/gradients", "ledger.json")


@pytest.fixture
def recipe(tmp_path):
    """A recipe for a model that was never taught anything."""
    for name, seed in (("tiny", 0), ("other", 1)):
        make_model("llama-tied", seed).save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "forget.json").write_text(json.dumps(ROWS))
    (tmp_path / "retain.json").write_text(json.dumps(OTHERS))
    given = {
        "name": "tiny",
        "model": str(tmp_path / "tiny"),
        "forget": str(tmp_path / "forget.json"),
        "retain": str(tmp_path / "retain.json"),
        "attribution": {"ratio": 0.5},
        "unlearning": {"max_steps": 1, "learning_rate": 5e-3},
        "evaluation": {"max_new_tokens": 4, "generate": False},
        "report": {"show_text": True},
    }

    def one(*words, **more):
        return load_recipe({**given, **more}, list(words))

    return one


def test_a_run_whose_model_never_knew_the_records_makes_nothing_and_says_why(recipe, tmp_path):
    run = execute(recipe(), tmp_path / "out")
    assert not [name for name in MADE if (run.folder / name).exists()]
    stages = run.state["stages"]
    assert list(stages) == list(STAGES)
    assert stages["after"]["verdict"] == "inconclusive"
    assert any("no likelier than invented ones" in one for one in stages["after"]["reasons"])
    assert "There is nothing to unlearn" in stages["after"]["reasons"][-1]
    assert stages["unlearn"]["skipped"] == "the model does not know the forget set"
    assert json.loads((run.folder / "evaluation.json").read_text())["after"] is None
    page = (run.folder / "report.html").read_text()
    assert "There is nothing to unlearn" in page
    table = summary_table(run.folder)
    assert "verdict      inconclusive" in table
    assert "none selected or changed" in table
    assert "forget.probability" in table
    assert summary_json(run.folder)["stages"]["after"]["verdict"] == "inconclusive"
    assert execute(recipe(), tmp_path / "out").state == run.state  # a finished run is not repeated


def test_the_commands_say_that_nothing_was_made(recipe, tmp_path, inside):
    execute(recipe(), tmp_path / "out")
    why = "the model does not know the forget set"
    assert inside("attribute", tmp_path / "out").strip() == f"no mask: {why}"
    assert inside("unlearn", tmp_path / "out").strip() == f"no model: {why}"
    assert cli.app is not None


def test_a_reference_that_finds_as_much_stops_the_run_too(recipe, tmp_path):
    run = execute(recipe(reference=str(tmp_path / "other")), tmp_path / "out", until="unlearn")
    said = run.state["stages"]["before"]["unknown"]
    assert said[0].startswith("No probe finds more of the forget set in the model than in the ref")
    assert not (run.folder / "model").exists()


def test_go_unlearns_all_the_same(recipe, tmp_path):
    run = execute(recipe("unlearning.when_unknown=go"), tmp_path / "out", until="unlearn")
    assert "unknown" not in run.state["stages"]["before"]
    assert (run.folder / "model").is_dir()


@pytest.mark.parametrize(
    ("word", "reference", "stops"),
    [
        ("does not know", None, True),
        ("cannot tell", None, False),
        ("knows", None, False),
        ("does not know", "other", True),
        ("cannot tell", "other", True),  # the reference has spoken
        ("knows", "other", False),  # then so does the reference, which is another problem
    ],
)
def test_when_a_run_stops(recipe, tmp_path, monkeypatch, word, reference, stops):
    monkeypatch.setattr(knowing, "word_about", lambda *_, **__: word)
    more = {} if reference is None else {"reference": str(tmp_path / reference)}
    run = execute(recipe(**more), tmp_path / "out", until="before")
    assert bool(run.state["stages"]["before"].get("unknown")) == stops


def test_a_model_that_knows_more_than_its_reference_is_not_asked_about_twins(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(knowing, "word_about", lambda *_, **__: pytest.fail("asked"))
    teach = {"epochs": 20, "learning_rate": 1e-2, "batch_size": 10}
    asked = recipe(finetune=teach, reference="untaught")
    assert (
        "unknown" not in execute(asked, tmp_path / "out", until="before").state["stages"]["before"]
    )
