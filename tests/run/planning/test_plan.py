"""``make_plan``: what a recipe needs, from its configuration and its records."""

import json
import math

import pytest
import yaml

from tests.conftest import OTHERS, RECORDS, make_model
from wagle.recipe.reading import load_recipe
from wagle.run.planning import plan as module
from wagle.run.planning.machine import Machine
from wagle.run.planning.plan import make_plan
from wagle.run.planning.table import plan_table
from wagle.run.planning.terms import Batch
from wagle.run.planning.work import Counted, batch_of
from wagle.system.errors import WagleError


@pytest.fixture
def recipe_file(tmp_path, model_folder):
    for name, rows in (("forget", RECORDS), ("retain", OTHERS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    recipe = {
        "name": "tiny",
        "model": str(model_folder),
        "reference": "untaught",
        "forget": str(tmp_path / "forget.json"),
        "retain": str(tmp_path / "retain.json"),
        "finetune": {"epochs": 3, "batch_size": 4},
        "attribution": {"ratio": 0.05},
        "unlearning": {"epochs": 2, "batch_size": 2},
        "evaluation": {"max_new_tokens": 8},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_a_plan_has_every_stage_that_computes_and_every_way(recipe_file, tmp_path):
    found = make_plan(load_recipe(recipe_file), tmp_path / "out")
    stages = ["teach", "reference", "before", "gradients", "mask", "unlearn", "patch", "after"]
    assert list(found["stages"]) == stages
    assert found["records"]["how"] == "read and tokenised"
    assert found["records"]["sets"]["forget"]["records"] == len(RECORDS)
    assert [(w["way"], w["ratio"]) for w in found["ways"]] == [
        *[(way, ratio) for way in ("whole", "stream") for ratio in (0.001, 0.01, 0.05, 0.8, 1.0)],
        ("lora", None),
        ("qlora", None),
    ]
    unlearn = found["stages"]["unlearn"]
    assert unlearn["memory"] == found["ways"][2]["memory"]  # whole at 0.05, as in the recipe
    assert unlearn["peak"] == pytest.approx(sum(unlearn["memory"].values()))
    assert found["run"]["peak"] == max(s["peak"] for s in found["stages"].values())
    assert found["run"]["seconds"] == pytest.approx(
        sum(s["seconds"] for s in found["stages"].values())
    )
    assert found["largest_ratio"] == {"whole": 1.0, "stream": 1.0}
    assert not (tmp_path / "out").exists()
    assert json.loads(json.dumps(found)) == found


def test_a_configuration_without_weights_or_tokenizer_is_enough(recipe_file, tmp_path):
    bare = tmp_path / "bare"
    make_model("llama-tied").config.save_pretrained(bare)
    recipe = load_recipe(recipe_file, [f"model.path={bare}", "model.max_length=96"])
    found = make_plan(recipe, tmp_path / "out")
    assert found["records"]["sets"]["forget"] == {
        "records": len(RECORDS),
        "tokens": 96 * len(RECORDS),
        "longest": 96,
    }
    assert "no tokenizer is there" in found["records"]["how"]
    assert found["model"]["total"] == sum(p.numel() for p in make_model("llama-tied").parameters())


def test_records_that_cannot_be_read_are_assumed_and_said_to_be(recipe_file, tmp_path):
    (tmp_path / "forget.json").unlink()
    found = make_plan(load_recipe(recipe_file), tmp_path / "out")
    assert found["records"]["how"].startswith("assumed: 64 records of 512 tokens a set")


def test_what_is_measured_of_a_block_is_said(recipe_file, tmp_path, monkeypatch):
    monkeypatch.setattr("wagle.run.planning.machine._LONG", 8 << 20)
    asked = []
    rate = module.block_rate
    monkeypatch.setattr(module, "block_rate", lambda *a, **k: asked.append(a[1]) or rate(*a, **k))
    found = make_plan(load_recipe(recipe_file), tmp_path / "out", measure=True)
    assert found["machine"]["timed"] == "block"
    assert asked[0].records == 2  # the recipe's own micro-batch
    rates = found["machine"]["rates"]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())


def test_a_block_too_large_to_be_timed_in_a_moment_takes_a_share_of_a_matrix_product(
    recipe_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_QUICK", 1)
    plain = Machine(10, 10, 10, {"flops": 10.0, "flops_half": 20.0})
    recipe = load_recipe(recipe_file)
    shape = module.shape_of(recipe.model.path)
    got, timed = module._with_blocks(plain, recipe, tmp_path, shape, Batch(2, 8, 4), long=False)
    assert timed == "matrix product"
    assert got.rates == {"flops": 0.7 * 10.0, "flops_half": 0.7 * 20.0}


def test_a_batch_is_padded_to_the_longest_record_and_scores_the_most():
    sets = [Counted((9, 17, 5), (4, 8, 2), (1, 1, 1)), Counted((20, 3), (1, 1), (1, 1))]
    assert batch_of(sets, 2) == Batch(2, 24, 12)
    assert batch_of(sets[1:], 8) == Batch(2, 24, 2)


def test_more_steps_take_longer_and_a_larger_batch_takes_more_memory(recipe_file, tmp_path):
    def unlearn(*settings):
        found = make_plan(load_recipe(recipe_file, list(settings)), tmp_path / "out")
        return found["stages"]["unlearn"]

    plain = unlearn()
    assert unlearn("unlearning.epochs=8")["flops"] > 3 * plain["flops"]
    assert unlearn("unlearning.evaluate_every=1")["flops"] > plain["flops"]  # looks at both sets
    wide = unlearn("unlearning.batch_size=6")
    assert wide["memory"]["activations"] > 2 * plain["memory"]["activations"]
    assert "vectors" in unlearn("unlearning.lora={rank: 4}")["memory"]
    copied = unlearn("unlearning.retain_term=kl")["memory"]["weights"]
    assert copied == 2 * plain["memory"]["weights"]
    assert (
        unlearn("unlearning.retain_term=kl", "unlearning.full_reference=topk")["memory"]
        == (plain["memory"])
    )
    gru = unlearn("unlearning.wrapper=gru")["memory"]["vectors"]
    assert gru == pytest.approx(plain["memory"]["vectors"] * (20 + 12) / 20)


def test_the_table_names_stages_ways_and_what_fits(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["controls=[random]"])
    lines = plan_table(make_plan(recipe, tmp_path / "out")).splitlines()
    assert [line.split()[0] for line in lines if line][:3] == ["model", "records", "machine"]
    assert "not planned: controls" in lines
    assert any(line.split()[:2] == ["stream", "0.05"] for line in lines)
    assert lines[-2:] == [
        "largest ratio that fits here with whole: all weights",
        "largest ratio that fits here with stream: all weights",
    ]


def test_a_recipe_without_a_forget_set_or_a_model_is_one_line(recipe_file, tmp_path):
    text = yaml.safe_load(recipe_file.read_text())
    none = tmp_path / "none.yaml"
    none.write_text(yaml.safe_dump({k: text[k] for k in ("name", "model", "retain")}))
    with pytest.raises(WagleError, match="a plan needs a forget set"):
        make_plan(load_recipe(none), tmp_path / "out")
    none.write_text(yaml.safe_dump({k: v for k, v in text.items() if k != "model"}))
    with pytest.raises(WagleError, match="model is missing"):
        load_recipe(none)
    with pytest.raises(WagleError, match=r"attribution\.ratio is 1\.5"):
        load_recipe(recipe_file, ["attribution.ratio=1.5"])
