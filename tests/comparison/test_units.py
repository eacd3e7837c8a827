"""Units: what another one changes in a recipe, and what it leaves alone."""

from __future__ import annotations

import pytest

from wagle.comparison import units
from wagle.comparison.units import forget_set_varies, make_unit, unit_recipe
from wagle.recipe.reading import load_recipe
from wagle.recipe.sections.unlearning import Lora
from wagle.run.opening import Run
from wagle.system.errors import WagleError

DEMO = {
    "name": "x",
    "model": "demo",
    "forget": "demo:forget",
    "retain": {"source": ["demo:retain", "more.json"]},
    "retain_heldout": "demo:retain_heldout@3",
    "general": "demo:general",
    "finetune": {"records": "demo:retain"},
}


def test_unit_0_is_the_recipe_itself():
    recipe = load_recipe(DEMO)
    assert unit_recipe(recipe, 0) is recipe


def test_another_unit_of_the_demo_has_another_seed_and_other_authors():
    found = unit_recipe(load_recipe({**DEMO, "seed": 7}), 2)
    assert found.seed == 9
    assert found.forget.source == "demo:forget@2"
    assert found.retain.source == ["demo:retain@2", "more.json"]
    assert found.retain_heldout.source == "demo:retain_heldout@5"
    assert found.general.source == "demo:general"
    assert found.finetune.records.source == "demo:retain@2"


def test_a_seed_of_the_draw_of_the_forget_set_moves_along():
    forget = {"source": "all.json", "take": "10%", "seed": 5}
    recipe = {"name": "x", "model": "m", "forget": forget, "retain": "complement", "finetune": {}}
    found = unit_recipe(load_recipe(recipe), 3)
    assert (found.seed, found.forget.seed) == (3, 8)
    assert found.retain == load_recipe(recipe).retain


@pytest.mark.parametrize(
    ("forget", "varies"),
    [
        ("demo:forget", True),
        ({"source": "all.json", "take": 5}, True),
        ("all.json", False),
        ("demo:general", False),
    ],
)
def test_whether_units_forget_other_records_is_known(forget, varies):
    recipe = load_recipe({"name": "x", "model": "m", "forget": forget, "finetune": {}})
    assert forget_set_varies(recipe) is varies


def test_a_recipe_that_does_not_teach_has_no_units():
    recipe = load_recipe({"name": "x", "model": "m", "forget": "all.json"})
    with pytest.raises(WagleError, match="needs to teach its units; add finetune"):
        unit_recipe(recipe, 0)


def test_a_unit_is_taught_once_and_measured_once_for_all_arms(tiny_recipe, tmp_path):
    arms = ["fisher", "random", "dense"]
    unit = make_unit(tiny_recipe(), 1, tmp_path / "1", arms, [0.5])
    assert unit.run.recipe.seed == 1
    assert list(unit.run.state["stages"]) == ["teach"]
    assert unit.masks.store.quantities == ("grad_forget", "fisher_retain")
    model = unit.run.models.base / "model.safetensors"
    stamp = model.stat().st_mtime_ns
    again = make_unit(tiny_recipe(), 1, tmp_path / "1", arms, [0.5])
    assert again.masks.seed == 1
    assert model.stat().st_mtime_ns == stamp
    forget = [{r.id for r in make.inputs.need("forget")} for make in (unit.run, again.run)]
    assert forget[0] == forget[1]


def test_the_adapter_of_an_arm_is_that_of_the_recipe_or_the_default(
    tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(units, "execute", lambda recipe, folder, **_: Run(folder, recipe))
    plain = make_unit(tiny_recipe(), 0, tmp_path, ["random", "lora"], [0.5])
    assert plain.lora == Lora()
    asked = tiny_recipe(unlearning={"lora": {"rank": 2, "alpha": 4}})
    unit = make_unit(asked, 1, tmp_path, ["random", "lora"], [0.5])
    assert (unit.lora.rank, unit.lora.alpha) == (2, 4)
    assert unit.run.recipe.unlearning.lora is None  # of this arm alone


def test_arms_that_need_no_gradients_need_no_pass(tiny_recipe, tmp_path):
    unit = make_unit(tiny_recipe(), 0, tmp_path / "0", ["random", "dense"], [0.5])
    assert unit.masks.store.quantities == ()
