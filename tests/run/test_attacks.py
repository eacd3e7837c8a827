"""The stage of attacks in a run: its files, what is private, and what is not made again."""

import json
import logging
import shutil

import pytest
import yaml

from tests.attacks.cases import SMALL
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.attacks.kinds.prompts.means import PREFIX
from wagle.attacks.shapes import Series
from wagle.attacks.table import ATTACKS
from wagle.evaluation.figures import Figure
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.run.stages.measuring import attacks as attacking
from wagle.run.stages.measuring.attacks import attacks
from wagle.system.errors import WagleError

FORGET = [
    {
        **row,
        "paraphrased_question": f"{row['question']} Tell me.",
        "decomposed_questions": ["Which garden, and whose?", "Whose house is near the sea?"],
        "perturbed_answer": ["Nobody knows of it."],
    }
    for row in RECORDS
]
TRAINING = {"learning_rate": 1e-2, "batch_size": 6}
ASKED = [
    {"name": "relearning", "settings": {"steps": [0, 2], "share": 0.5, "learning_rate": 5e-3}},
    {
        "name": "relearning",
        "label": "benign",
        "settings": {"steps": [0, 2], "records": "benign", "share": 0.5},
    },
    {"name": "quantization", "settings": {"methods": ["int8"]}},
    {"name": "prompts", "settings": {"max_new_tokens": 4}},
    {"name": "probe", "settings": {"groups": None}},
    {"name": "sampling", "settings": {"samples": 2, "max_new_tokens": 4}},
]
ASKED += [  # those that are not named above, with the settings of their own tests
    {"name": name, "settings": SMALL[name]}
    for name in ATTACKS
    if name not in {asked["name"] for asked in ASKED}
]
LABELS = [asked.get("label", asked["name"]) for asked in ASKED]


def write_recipe(home, **more):
    make_model("llama-tied").save_pretrained(home / "tiny")
    make_tokenizer().save_pretrained(home / "tiny")
    sets = {"forget": FORGET, "retain": OTHERS[:4], "general": OTHERS[4:]}
    for name, rows in sets.items():
        (home / f"{name}.json").write_text(json.dumps(rows))
    recipe = {
        "name": "attacked",
        "model": str(home / "tiny"),
        "reference": "untaught",
        **{name: str(home / f"{name}.json") for name in sets},
        "finetune": {**TRAINING, "epochs": 25},
        "attribution": {"score": "random", "ratio": 0.5},
        "unlearning": {**TRAINING, "epochs": 4, "stop_when": []},
        "patch": {"enabled": False},
        "evaluation": {"generate": False},
        "attacks": ASKED,
        **more,
    }
    path = home / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(home):
    return execute(load_recipe(write_recipe(home)), home / "out", until="attacks")


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def result(run, label):
    return json.loads((run.folder / "attacks" / f"{label}.json").read_text())


def test_every_attack_of_a_recipe_has_a_file_with_the_three_models(run):
    assert {asked["name"] for asked in ASKED} == set(ATTACKS)
    names = dict(zip(LABELS, (asked["name"] for asked in ASKED), strict=True))
    assert run.state["stages"]["attacks"]["attacks"] == names
    after = run.evaluation("after").details["model"]["fingerprint"]
    for label, name in names.items():
        found = result(run, label)
        assert (found["schema"], found["attack"]) == ("wagle-attack/1", name)
        assert (found["model"], found["seed"]) == (after, 0)
        assert list(found["roles"]) == ["after", "before", "reference"]
        states = [list(role["states"]) for role in found["roles"].values()]
        assert states[0] == states[1] == states[2]
        assert found["effects"]


def test_the_first_look_is_what_the_evaluation_says_of_each_model(run):
    for role in ("before", "after", "reference"):
        own = run.evaluation(role).figures["forget"]["probability"].value
        for label, state in (("relearning", "step 0"), ("quantization", "as it is")):
            figure = result(run, label)["roles"][role]["states"][state]["forget.probability"]
            assert figure["value"] == pytest.approx(own, abs=1e-5)
        figure = result(run, "prompts")["roles"][role]["states"]["plain"]["probability"]
        assert figure["value"] == pytest.approx(own, abs=1e-5)


def test_effects_are_worked_out_of_the_figures_beside_them(run):
    found = result(run, "relearning")

    def value(role, state):
        return found["roles"][role]["states"][state]["forget.probability"]["value"]

    effect = found["effects"]["step 2"]["forget.probability"]
    rise = value("after", "step 2") - value("after", "step 0")
    lost = value("before", "step 0") - value("after", "step 0")
    assert effect["rise"] == pytest.approx(rise)
    assert effect["recovered"] == pytest.approx(rise / lost)
    other = value("reference", "step 2") - value("reference", "step 0")
    assert effect["gap"] == pytest.approx(rise - other)
    leak = result(run, "sampling")
    one, two = (leak["roles"][r]["states"]["forget"]["leak@2"] for r in ("after", "reference"))
    assert leak["effects"]["forget"]["leak@2"]["gap"] == one["value"] - two["value"]


def test_codes_are_counted_for_the_quantisations_that_were_asked_for(run):
    codes = result(run, "quantization")["codes"]
    assert list(codes) == ["int8"]  # groups of int4 would not divide this model's widths
    assert codes["int8"]["weights"] > 0
    assert 0 < codes["int8"]["changed"] <= codes["int8"]["weights"]
    assert 0 <= codes["int8"]["code_changed"] <= 1
    assert "codes" not in result(run, "relearning")


def test_codes_of_a_masked_adapter_are_of_all_weights_that_changed(tmp_path):
    asked = [{"name": "quantization", "settings": {"methods": ["int8"], "group_size": "16"}}]
    path = write_recipe(
        tmp_path,
        attacks=asked,
        reference=None,
        finetune=None,
        unlearning={
            **TRAINING,
            "epochs": 1,
            "stop_when": [],
            "lora": {"masked": True},
            "when_unknown": "go",
        },
    )
    made = execute(load_recipe(path), tmp_path / "out", until="attacks")
    codes = result(made, "quantization")["codes"]["int8"]
    assert codes["weights"] == codes["changed"] > 0


def auc(value, interval=None):
    return Figure(value, interval, "", unit="AUC", count=20)


@pytest.mark.parametrize(
    ("own", "goal", "warned"),
    [
        (auc(0.8, (0.7, 0.9)), auc(0.55, (0.45, 0.65)), True),
        (auc(0.6, (0.5, 0.7)), auc(0.55, (0.45, 0.65)), False),
        (auc(0.8), auc(0.55), False),
        (auc(0.8, (0.7, 0.9)), auc(0.55), False),
        (auc(0.8), auc(0.55, (0.45, 0.65)), False),
    ],
)
def test_only_a_figure_above_the_reference_with_its_whole_interval_is_warned_of(
    caplog, own, goal, warned
):
    found = {
        role: Series({"forget_or_holdout": {"auc_block_0": f, "auc_maximum_shuffled": f}})
        for role, f in (("after", own), ("reference", goal))
    }
    with caplog.at_level(logging.WARNING, "wagle"):
        attacking._warn("probe", found)
    assert ("auc_block_0" in caplog.text) is warned
    assert "shuffled" not in caplog.text


def test_what_the_models_wrote_is_private_and_nothing_else_holds_record_text(run):
    said = json.loads((run.private / "attack-prompts-after.json").read_text())
    assert said["paraphrase"][0]["question"] == FORGET[0]["paraphrased_question"]
    assert (run.private / "attack-sampling-reference.json").stat().st_mode & 0o777 == 0o600
    texts = [v for row in FORGET + OTHERS for v in row.values() if isinstance(v, str)]
    texts += FORGET[0]["decomposed_questions"]
    for name, path in files(run.folder / "attacks").items():
        data = path.read_text()
        for text in (t for t in texts if len(t) > 8):
            assert text not in data, (name, text)


def test_the_names_of_groups_do_not_leave_the_recipe(home, run):
    groups = {f"{n}[{i}]": f"Author {i % 3}" for n in ("forget", "general") for i in range(6)}
    asked = [{"name": "probe", "settings": {"groups": groups, "readings": ["forget_or_holdout"]}}]
    again = home / "grouped"
    shutil.copytree(run.folder, again)
    recipe = load_recipe(home / "recipe.yaml").model_copy(
        update={"attacks": load_recipe(write_recipe(home, attacks=asked)).attacks}
    )
    (again / "attacks" / "probe.json").unlink()
    attacks(Run(again, recipe))
    data = (again / "attacks" / "probe.json").read_text()
    assert "Author" not in data
    assert json.loads(data)["settings"]["groups"] == "of 12 records"


def test_a_second_call_makes_nothing_again(run, monkeypatch):
    def never(*_):
        raise AssertionError("asked again")

    stamps = {name: path.stat().st_mtime_ns for name, path in files(run.folder).items()}
    monkeypatch.setattr("wagle.run.stages.measuring.attacks.make_attack", never)
    execute(run.recipe, run.folder, until="attacks")
    assert stamps == {n: p.stat().st_mtime_ns for n, p in files(run.folder).items()}
    assert attacks(run) == {"attacks": run.state["stages"]["attacks"]["attacks"]}


def test_an_attack_that_a_killed_run_had_not_finished_is_made_and_no_other(home, run, monkeypatch):
    again = home / "killed"
    shutil.copytree(run.folder, again)
    state = json.loads((again / "state.json").read_text())
    del state["stages"]["attacks"], state["seal"]
    (again / "state.json").write_text(json.dumps(state))
    (again / "attacks" / "sampling.json").unlink()
    made = []
    inner = attacking.make_attack

    def counted(name, *arguments):
        trial = inner(name, *arguments)
        return lambda model: made.append(name) or trial(model)

    monkeypatch.setattr(attacking, "make_attack", counted)
    execute(run.recipe, again, until="attacks")
    assert made == ["sampling"] * 3  # after, before and reference
    one, other = (
        json.loads((f / "attacks/sampling.json").read_text()) for f in (again, run.folder)
    )
    assert one == other


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ([{"name": "probe", "settings": {"holdout": "nowhere.json"}}], "nowhere.json does not"),
        (["relearnin"], "unknown attack 'relearnin'; did you mean 'relearning'"),
        ([{"name": "sampling", "settings": {"smples": 3}}], "did you mean 'samples'"),
        ([{"name": "prompts", "settings": {"attacks": ["system"]}}], "system needs system_prompt"),
        (
            [{"name": "quantization", "settings": {"group_size": 7}}],
            "has 32 inputs, which groups of 7 do not divide; give another group_size",
        ),
        (
            ["probe", "probe"],
            r"attacks\[1\] has the name 'probe' of an earlier one; give it a label",
        ),
    ],
)
def test_what_an_attack_lacks_ends_the_run_before_it_begins(tmp_path, attacks, message):
    with pytest.raises(WagleError, match=message) as caught:
        execute(load_recipe(write_recipe(tmp_path, attacks=attacks)), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "base").exists()


def test_a_missing_set_ends_the_run_before_it_begins(tmp_path):
    path = write_recipe(tmp_path, attacks=["probe"])
    with pytest.raises(WagleError, match=r"probe .* needs a general set; add one to the recipe"):
        execute(load_recipe(path, ["general=null"]), tmp_path / "out")
    assert not (tmp_path / "out" / "base").exists()


def test_the_prefix_is_a_setting_and_no_text_of_a_record(run):
    assert result(run, "prompts")["settings"] == {"max_new_tokens": 4}
    assert PREFIX not in (run.folder / "attacks" / "prompts.json").read_text()
