"""The folder of a comparison: what is asked for there, where its files lie, and what goes again."""

from __future__ import annotations

import json

import pytest

from wagle.comparison import compare
from wagle.comparison.arms import Cell
from wagle.comparison.compare import FORMAT, Comparison, _Lazily
from wagle.comparison.tuning import Tuned
from wagle.recipe.reading import load_recipe
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json

RECIPE = {
    "name": "x",
    "model": "demo",
    "forget": "demo:forget",
    "retain": "demo:retain",
    "finetune": {},
}
FIXED = {"source": "a.json", "take": "all"}  # every unit forgets the same


def comparison(folder, arms=("wagle", "random", "dense"), keep=False, units=2, **more):
    recipe = load_recipe({**RECIPE, **more})
    return Comparison(recipe, list(arms), [0.25, 0.5], folder, units, 1, 7, keep)


@pytest.mark.parametrize(
    ("changes", "has"),
    [
        ({}, False),
        ({"reference": "untaught"}, True),
        ({"reference": "retrained"}, False),  # every unit would be taught twice
        ({"reference": "/a/model"}, False),  # the demo's units forget other authors
        ({"reference": "/a/model", "forget": FIXED}, True),
        ({"reference": "/a/model", "forget": {**FIXED, "take": 5}}, False),
    ],
)
def test_a_reference_is_one_only_where_every_unit_forgets_what_it_never_knew(
    tmp_path, changes, has
):
    assert comparison(tmp_path, **changes)._has_reference is has


def test_the_first_claim_writes_the_plan_and_the_same_one_finds_it_again(tmp_path):
    (tmp_path / ".lock").touch()
    comparison(tmp_path).claim()
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["format"] == FORMAT
    assert (plan["arms"], plan["ratios"]) == (["wagle", "random", "dense"], [0.25, 0.5])
    assert (plan["trials"], plan["steps"], plan["recipe.name"]) == (1, 7, "x")
    comparison(tmp_path, units=9, keep=True).claim()  # more units, and models that are kept


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"arms": ("random", "wagle", "dense")}, "arms"),
        ({"seed": 7}, "recipe.seed"),
        ({"unlearning": {"objective": "grad_diff"}}, "recipe.unlearning"),
    ],
)
def test_a_claim_of_another_comparison_names_what_differs(tmp_path, change, named):
    comparison(tmp_path).claim()
    before = (tmp_path / "plan.json").read_text()
    with pytest.raises(WagleError, match=rf"holds another comparison \({named} differs\)"):
        comparison(tmp_path, **change).claim()
    assert (tmp_path / "plan.json").read_text() == before


def test_a_plan_that_lacks_what_is_asked_for_now_is_another_one(tmp_path):
    comparison(tmp_path).claim()
    path = tmp_path / "plan.json"
    plan = json.loads(path.read_text())
    del plan["steps"]
    write_json(path, plan)
    with pytest.raises(WagleError, match=r"\(steps differs\)"):
        comparison(tmp_path).claim()


@pytest.mark.parametrize(("name", "value"), [("units", 0), ("trials", -1), ("steps", 0)])
def test_a_number_below_one_is_refused_before_the_folder_is_made(tmp_path, name, value):
    recipe = load_recipe(RECIPE)
    with pytest.raises(WagleError, match=f"{name} is {value}; it must be at least 1"):
        compare.compare_arms(recipe, ["random"], tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


# ----- units, one at a time -----


@pytest.fixture
def taught(monkeypatch):
    """The units that were taught, by number; a unit's folder holds a model."""
    made = []

    def make(_, number, folder, *__):
        made.append(number)
        (folder / "base").mkdir(parents=True, exist_ok=True)
        return f"unit {number}"

    monkeypatch.setattr(compare, "make_unit", make)
    return made


@pytest.mark.parametrize("keep", [True, False])
def test_a_unit_is_taught_when_it_is_needed_and_once(tmp_path, taught, keep):
    unit = _Lazily(comparison(tmp_path, keep=keep), 1)
    assert taught == []
    assert (unit.open(), unit.open(), taught) == ("unit 1", "unit 1", [1])
    unit.close()
    assert (tmp_path / "units/1/base").is_dir() is keep
    assert unit.open() == "unit 1"
    assert taught == [1, 1]


def test_a_unit_that_was_never_needed_is_closed_all_the_same(tmp_path, taught):
    _Lazily(comparison(tmp_path), 0).close()
    assert taught == []


def test_a_run_that_is_kept_is_not_made_again_and_its_unit_is_not_taught(
    tmp_path, taught, monkeypatch
):
    ran = []

    def run_arm(unit, cell, **more):
        ran.append((unit, cell.name, more))
        return {"selected": 3}

    monkeypatch.setattr(compare, "run_arm", run_arm)
    asked, cell = comparison(tmp_path), Cell("wagle", 0.5)
    for _ in range(2):
        asked._run(cell, _Lazily(asked, 1), 2e-5)
    assert ran == [("unit 1", cell.name, {"learning_rate": 2e-5, "steps": 7})]
    assert taught == [1]
    kept = json.loads(asked._file(cell.name, 1).read_text())
    assert kept == {"arm": "wagle", "ratio": 0.5, "unit": 1, "selected": 3}


@pytest.mark.usefixtures("taught")
def test_a_reference_is_looked_at_once_a_unit_and_not_at_all_where_there_is_none(
    tmp_path, monkeypatch
):
    looked = []
    monkeypatch.setattr(compare, "look_at_reference", lambda unit: looked.append(unit) or {})
    for _ in range(2):
        asked = comparison(tmp_path, reference="untaught")
        asked._reference(_Lazily(asked, 0))
    without = comparison(tmp_path / "other")
    without._reference(_Lazily(without, 0))
    assert looked == ["unit 0"]


def test_the_order_of_the_work_is_tuning_then_every_cell_unit_by_unit(tmp_path, monkeypatch):
    done = []
    rates = {"wagle": 1e-5, "random": 2e-5}

    def tuned(_, __, cell, ___):
        return Tuned(rates[cell.arm], edge=False)

    def run(_, cell, unit, rate):
        done.append((unit.number, cell.arm, rate))

    monkeypatch.setattr(Comparison, "_tune", tuned)
    monkeypatch.setattr(Comparison, "_run", run)
    monkeypatch.setattr(Comparison, "_write", lambda *given: {"units": given[-1]})
    recipe = load_recipe(RECIPE)
    asked = Comparison(recipe, ["wagle", "random"], [0.5], tmp_path, 2, 1, 7, False)
    assert asked.run() == {"units": 2}
    assert done == [(n, arm, rates[arm]) for n in range(2) for arm in ("wagle", "random")]
