"""A whole comparison on a tiny model: killed, resumed, grown; and what it refuses to start."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.comparison.conftest import ROWS
from wagle.cli import app as cli
from wagle.comparison import compare
from wagle.comparison.compare import Comparison, compare_arms
from wagle.recipe.reading import dump_recipe
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json

ARMS = ["wagle", "random", "dense"]


@pytest.fixture(scope="module")
def grown(tiny_recipe, tmp_path_factory):
    """A comparison that was killed twice, ended, and got a second unit: (folder, runs, results)."""
    folder = tmp_path_factory.mktemp("compare") / "out"
    real, ran, killed = compare.run_arm, [], []

    def run_arm(unit, cell, **settings):
        if len(ran) in (3, 7) and len(ran) not in killed:  # while tuning, and between two runs
            killed.append(len(ran))
            raise KeyboardInterrupt
        found = real(unit, cell, **settings)
        ran.append((unit.number, cell.name, settings["learning_rate"], "tuning" in settings))
        return found

    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "run_arm", run_arm)
        for units in (1, 1, 1, 2, 2):
            try:
                found = compare_arms(tiny_recipe(), ARMS, folder, units=units, trials=2)
                results.append((units, len(ran), found))
            except KeyboardInterrupt:
                results.append((units, len(ran), None))
    return folder, ran, results


def test_a_killed_comparison_goes_on_and_repeats_nothing(grown):
    _, ran, results = grown
    assert [(units, done) for units, done, _ in results] == [
        (1, 3),
        (1, 7),
        (1, 9),
        (2, 12),
        (2, 12),
    ]
    assert len(set(ran)) == len(ran) == 12  # 3 arms: 2 trials each, and a run on each of 2 units
    assert [found is None for *_, found in results] == [True, True, False, False, False]


def test_every_arm_runs_at_its_tuned_learning_rate_on_every_unit(grown):
    folder, ran, results = grown
    found = results[-1][2]
    for arm in found["arms"]:
        tried = {rate for _, name, rate, tuning in ran if name == arm["name"] and tuning}
        used = {rate for _, name, rate, tuning in ran if name == arm["name"] and not tuning}
        assert sorted(tried) == pytest.approx([5e-4, 0.15])
        assert used == {arm["learning_rate"]}
        files = [read_json(folder / "runs" / arm["name"] / f"unit-{n}.json") for n in range(2)]
        assert [file["unit"] for file in files] == [0, 1]
        assert all(file["trajectory"][-1]["step"] == 3 for file in files)


def test_the_results_name_every_arm_and_are_what_the_files_hold(grown):
    folder, _, results = grown
    found = results[-1][2]
    assert json.loads(json.dumps(found)) == read_json(folder / "comparison.json")
    assert found == results[-2][2]
    assert (found["units"], found["exploratory"], found["forget_set_varies"]) == (2, True, True)
    assert [arm["name"] for arm in found["arms"]] == ["wagle@0.5", "random@0.5", "dense"]
    assert [one["arm"] for one in found["differences"]] == ["wagle", "dense"]
    assert len(found["reference"]) == len(found["before"]) == 2
    assert found["before"][0] != found["before"][1]  # two models, two forget sets
    assert found["sentence"] in (folder / "comparison.html").read_text()


def test_taught_models_and_gradients_are_gone_at_the_end(grown):
    folder, _, _ = grown
    assert not list((folder / "units").iterdir())
    assert not list(folder.rglob("*.safetensors"))


def test_a_comparison_holds_no_text_of_a_record(grown):
    folder, _, _ = grown
    texts = [text for row in ROWS for text in row.values() if len(text) > 8]
    for file in folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert not [text for text in texts if text.encode() in data], file


def test_another_comparison_in_the_folder_is_refused(grown, tiny_recipe, tmp_path):
    folder, _, _ = grown
    recipe = tiny_recipe()
    for key, settings in {
        "arms": {"arms": ["wagle", "random"]},
        "ratios": {"ratios": [0.1]},
        "trials": {"trials": 3},
        "steps": {"steps": 2},
        "recipe.unlearning": {"recipe": tiny_recipe(unlearning={"max_steps": 3})},
    }.items():
        given = {"recipe": recipe, "arms": ARMS, "folder": folder, "trials": 2, **settings}
        with pytest.raises(WagleError, match=rf"holds another comparison \({key} differs\)"):
            compare_arms(**given)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(WagleError, match="exists and is not a comparison"):
        compare_arms(recipe, ARMS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"finetune": None, "reference": None}, {}, "needs to teach its units; add finetune"),
        ({}, {"units": 0}, "units is 0"),
        ({}, {"trials": 0}, "trials is 0"),
        ({}, {"steps": 0}, "steps is 0"),
        ({}, {"ratios": [2.0]}, "ratio 2.0 is outside"),
        ({"unlearning": {"objective": "npoo"}}, {}, "unknown objective 'npoo'"),
        ({"unlearning": {"objective": "none"}}, {}, "objective none has no intermediate steps"),
        ({"unlearning": {"wrapper": "task_vector"}}, {}, "task_vector has no intermediate steps"),
        ({"unlearning": {"optimizer": "Adamm"}}, {}, "Adamm"),
        ({"retain": None}, {}, "no retain set"),
        ({"attribution": {"engine": "strem"}}, {}, "unknown engine 'strem'"),
        ({"attribution": {"include": ["nothing"]}}, {}, "'nothing' matches no parameter"),
        ({"unlearning": {"objective": "rmu"}}, {}, "layer is 7; the model has blocks 0 to 1"),
        ({"unlearning": {"objective": "dpo_alt"}}, {}, "has no alternative answer"),
        ({"unlearning": {"report_to": ["wandbb"]}}, {}, "unknown tracker 'wandbb'"),
        ({"unlearning": {"full_reference": "adapter"}}, {}, "the model has no LoRA adapter"),
        (
            {"unlearning": {"wrapper": "gru", "retain_term": "none"}},
            {},
            "gru needs a forget term and a retain term",
        ),
        (
            {"unlearning": {"lora": {"masked": True}}},
            {"arms": ["random", "lora"]},
            "unlearning.lora.masked does not work with the arm lora",
        ),
        (
            {"unlearning": {"lora": {"quantize": "nf4"}}},
            {"arms": ["random", "lora"]},
            "unlearning.lora.quantize does not work with the arm lora",
        ),
        (
            {"unlearning": {"lora": {"targets": ["q_porj"]}}},
            {"arms": ["random", "lora"]},
            "unknown LoRA target 'q_porj'",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    tiny_recipe, tmp_path, changes, settings, message
):
    with pytest.raises(WagleError, match=message):
        compare_arms(tiny_recipe(**changes), folder=tmp_path / "out", **{"arms": ARMS, **settings})
    assert not (tmp_path / "out").exists()


def test_models_are_kept_where_they_are_asked_for(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "run_arm", _pretend)
    compare_arms(tiny_recipe(reference=None), ARMS, tmp_path, units=1, trials=1, keep_models=True)
    assert (tmp_path / "units" / "0" / "base" / "model.safetensors").is_file()


def test_what_a_comparison_does_not_use_may_be_anything(tiny_recipe, tmp_path):
    """Its own masks, and no rule: those of the recipe are for `wagle run`."""
    changes = {
        "attribution": {"mask": "nowhere"},
        "unlearning": {
            "stop_when": ["forget.nll > reference"],
            "best": "min forget.nll",
            "lora": {"masked": True},
        },
    }
    Comparison(
        tiny_recipe(reference=None, **changes), ARMS, [0.5], tmp_path, 1, 1, 1, False
    ).check()


def _pretend(*_, learning_rate, steps, tuning=False):
    """A run of an arm that does nothing."""
    names = ("retain", "forget") if tuning else ("retain", "forget", "heldout")
    looks = [{"step": step, **dict.fromkeys(names, 0.5)} for step in (0, steps)]
    return {
        "learning_rate": learning_rate,
        "selected": 1,
        "trajectory": looks,
        "stopped": None,
        "seconds": 0.0,
    }


def test_a_retrained_reference_of_one_forget_set_is_none_where_others_are_forgotten(
    tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(compare, "run_arm", _pretend)
    recipe = tiny_recipe(reference=tiny_recipe().model.path)
    found = compare_arms(recipe, ARMS, tmp_path, units=1, trials=1)
    assert found["reference"] is None


def test_the_command_prints_the_table_or_json(tiny_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "run_arm", _pretend)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(tiny_recipe()))
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["name"] == "tiny"
    command = ["compare", str(tmp_path / "recipe.yaml"), "unlearning.max_steps=5"]
    command += ["--arms", "wagle,random,complement", "--ratios", "0.5,0.1", "--units", "1"]
    command += ["--trials", "1", "--out", str(tmp_path / "out")]
    cli.app(args=command, standalone_mode=False)
    table = capsys.readouterr().out
    assert "ratio 0.1" in table
    assert "complement" in table
    cli.app(args=[*command, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [arm["ratio"] for arm in found["arms"]] == [0.1] * 3 + [0.5] * 3
    assert found["steps"] == 5
