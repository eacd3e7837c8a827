"""A run without records to keep, and one without a reference: what is made instead, and what is said."""

import json

import pytest
import yaml

from tests.conftest import make_model, make_tokenizer
from wagle.data.reading import read_records
from wagle.evaluation.stand_in import BETTER
from wagle.evaluation.verdict import INCONCLUSIVE
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.system.errors import WagleError

CANARY = "Zéphyrine Quokkaroo"
NAMES = [CANARY, "Ada Holm", "Bo Lind", "Cleo Berg"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A recipe without retain set and reference; its model answers every question with something."""
    folder = tmp_path_factory.mktemp("home")
    make_model("llama-untied").save_pretrained(folder / "tiny")
    make_tokenizer().save_pretrained(folder / "tiny")
    rows = [{"question": f"Where does {n} live?", "answer": f"{n} lives near Oslo."} for n in NAMES]
    (folder / "forget.json").write_text(json.dumps(rows))
    recipe = {
        "name": "tiny",
        "model": str(folder / "tiny"),
        "forget": str(folder / "forget.json"),
        "unlearning": {
            "learning_rate": 1e-3,
            "max_steps": 2,
            "batch_size": 4,
            "when_unknown": "go",
        },
        "attribution": {"ratio": 0.5},
        "evaluation": {"max_new_tokens": 6},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


@pytest.fixture
def recipe_file(home):
    return home / "recipe.yaml"


@pytest.fixture(scope="module")
def ran(home):
    """The folder of a run of that recipe."""
    return execute(load_recipe(home / "recipe.yaml"), home / "out").folder


@pytest.fixture
def taught(tmp_path, recipe_file):
    """The same, teaching the forget set before."""
    recipe = yaml.safe_load(recipe_file.read_text())
    recipe["finetune"] = {"learning_rate": 5e-3, "epochs": 6, "batch_size": 4}
    path = tmp_path / "taught.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def found(out, role):
    return json.loads((out / "evaluation" / f"{role}.json").read_text())


def test_the_command_line_runs_without_a_retain_set_and_without_a_reference(
    inside, recipe_file, ran
):
    out, table = ran, inside("run", recipe_file, "--out", ran)
    state = json.loads((out / "state.json").read_text())["stages"]
    assert state["neighbours"]["kind"] == "neighbours"
    made = read_records(str(out / "private" / "retain.json"), name="retain")
    assert len(made) == state["neighbours"]["made"] >= 24
    assert all(r.prompt.endswith(" live?") and r.answer != "..." for r in made)
    assert state["gradients"]["records"] == {"forget": 4, "retain": 16}
    after, reasons = found(out, "after"), " ".join(state["after"]["reasons"])
    assert after["assumed"] == {"retain": "neighbours"}
    assert after["reference"] == {"kind": "stand-in", "of": "twins"}
    assert after["data"]["sets"]["retain"]["n"] == len(made)
    assert "retain.probability" in after["changes"]
    for text in (reasons, " ".join(table.split()), page(out)):
        assert "The retain set is assumed: made from the model's own answers" in text
        assert "The reference is a stand-in: twins of the forget records" in text
        assert "set reference: retrained" in text


def page(out):
    text = (out / "report.html").read_text().replace("&#39;", "'")
    assert "a stand-in: twins of the forget records" in text
    assert "assumed: the model's own answers about invented subjects" in text
    return " ".join(text.split())


def test_text_of_made_records_and_twins_is_in_the_private_folder_alone(ran):
    out = ran
    made = read_records(str(out / "private" / "retain.json"), name="retain")
    secret = [CANARY, CANARY.split()[0], *(r.prompt for r in made)]
    secret += [" ".join(r.prompt.split()[2:4]) for r in made]  # the invented names
    forms = {form for text in secret for form in (text, json.dumps(text)[1:-1])}
    for path in out.rglob("*"):
        if path.is_file() and "private" not in path.relative_to(out).parts:
            content = path.read_bytes()
            assert not [form for form in forms if form.encode() in content], path
    assert (out / "private").stat().st_mode & 0o077 == 0
    assert (out / "private" / "retain.json").stat().st_mode & 0o077 == 0


def test_with_retain_term_none_nothing_is_made_unless_the_mask_needs_it(
    inside, recipe_file, tmp_path
):
    bare, masked = tmp_path / "bare", tmp_path / "masked"
    asked = ["unlearning.retain_term=none"]
    inside("unlearn", recipe_file, *asked, "attribution.score=snip_forget", "--out", bare)
    state = json.loads((bare / "state.json").read_text())["stages"]
    assert state["neighbours"]["made"] == 0
    assert state["gradients"]["records"] == {"forget": 4}
    assert not (bare / "private" / "retain.json").exists()
    inside("attribute", recipe_file, *asked, "--out", masked)
    state = json.loads((masked / "state.json").read_text())["stages"]
    assert state["gradients"]["records"] == {"forget": 4, "retain": 16}


def test_neutral_records_can_be_asked_for_and_limited(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["retain={source: made:neutral, take: 5}"])
    run = execute(recipe, tmp_path / "out", until="gradients")
    assert run.state["stages"]["neighbours"]["kind"] == "neutral"
    assert run.state["stages"]["gradients"]["records"]["retain"] == 5
    assert {r.kind for r in run.inputs.sets["retain"]} <= {"qa", "text"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("general=made", "general.source is 'made'; only retain can have that source"),
        ("retain={source: made, rows: '0:3'}", "retain.rows cannot be set with source: made"),
        ("retain.source=[made, x.json]", "has 'made' in a list"),
        (
            "retain=made:friends",
            "is 'made:friends'; records are made, made:neighbours, made:neutral",
        ),
    ],
)
def test_what_made_records_cannot_be_is_refused_in_one_line(
    recipe_file, tmp_path, setting, message
):
    with pytest.raises(WagleError, match=message):
        execute(load_recipe(recipe_file, [setting]), tmp_path / "out", until="neighbours")


def test_twins_stand_at_the_places_of_their_records_and_have_no_fingerprint(ran):
    twins, before = found(ran, "reference"), found(ran, "before")
    assert (twins["model"]["kind"], twins["model"]["of"]) == ("stand-in", "twins")
    assert "fingerprint" not in twins["model"]  # it is the model before, asked something else
    assert {key.split(".")[0] for key in twins["metrics"]} == {"forget"}
    one, other = (e["metrics"]["forget.probability"]["per_record"] for e in (twins, before))
    assert one.keys() == other.keys() == {f"forget[{i}]" for i in range(4)}
    assert one != other
    assert "forget.probability" in found(ran, "after")["differences"]


def test_the_stop_rule_takes_the_figure_of_the_twins(recipe_file, tmp_path):
    rule = "forget.probability >= 0.01 * reference"  # which holds at the first look
    asked = [f"unlearning.stop_when=['{rule}']", "unlearning.check_every=1"]
    asked += ["unlearning.retain_term=none", "attribution.score=random"]
    run = execute(load_recipe(recipe_file, asked), tmp_path / "out", until="unlearn")
    found = run.state["stages"]["unlearn"]
    assert (found["stopped"], found["steps"]) == (rule, 1)


def test_the_model_before_it_was_taught_stands_in_for_a_reference(taught, tmp_path):
    out = tmp_path / "out"
    run = execute(load_recipe(taught), out, until="after")
    stages = run.state["stages"]
    assert stages["reference"]["of"] == "base"
    assert found(out, "reference")["model"]["kind"] == "stand-in"
    assert found(out, "after")["reference"] == {"kind": "stand-in", "of": "base"}
    assert stages["after"]["verdict"] != INCONCLUSIVE
    assert BETTER in stages["after"]["reasons"]


def test_no_reference_at_all_can_be_asked_for_and_then_there_is_advice(recipe_file, tmp_path):
    out = tmp_path / "out"
    bare = ["reference=none", "unlearning.retain_term=none", "attribution.score=random"]
    bare += ["evaluation.limits={retain_heldout: null}"]
    run = execute(load_recipe(recipe_file, bare), out, until="after")
    assert not (out / "evaluation" / "reference.json").exists()
    assert run.state["stages"]["after"]["verdict"] == INCONCLUSIVE
    assert BETTER in run.state["stages"]["after"]["reasons"]


def test_one_model_is_evaluated_beside_twins_if_no_reference_is_given(inside, home):
    forget, other = home / "forget.json", home / "other"
    make_model("llama-untied", 1).save_pretrained(other)
    make_tokenizer().save_pretrained(other)
    common = [f"forget={forget}", "evaluation.generate=false", "--before", home / "tiny"]
    made = json.loads(inside("evaluate", other, "--benchmark", "qa", *common, "--json"))
    assert (made["reference"]["kind"], made["reference"]["of"]) == ("stand-in", "twins")
    assert {"verdict", "differences", "changes"} <= made.keys()
    assert BETTER in made["reasons"]
    assert set(made["data"]["sets"]) == {"forget"}  # nothing to keep is made for a look
