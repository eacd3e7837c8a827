"""One run: what is looked at, and what becomes of a run that breaks off."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from wagle.comparison import runs
from wagle.comparison.arms import Cell
from wagle.comparison.runs import count_steps, heldout_tokens, look_at_reference, read_run, run_arm
from wagle.comparison.units import make_unit
from wagle.data.records import Record
from wagle.model.loading import load_model
from wagle.recipe.sections.unlearning import Lora
from wagle.system.errors import TrainingStopped, WagleError

DENSE = Cell("dense", None)


@pytest.fixture(scope="module")
def unit(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unit") / "0"
    return make_unit(tiny_recipe(), 0, folder, ["magnitude", "random", "dense"], [0.5])


def probability(model, unit, question):
    """Mean over forget records of exp(-mean NLL) of the answer, one record at a time."""
    found = []
    for record in unit.run.inputs.need("forget"):
        tokens = unit.run.inputs.encoder.answer(record, question(record), record.answer)
        ids = torch.tensor([tokens.ids])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        scored = [i for i, on in enumerate(tokens.scored) if on]
        found.append(math.exp(sum(float(logs[i - 1, tokens.ids[i]]) for i in scored) / len(scored)))
    return sum(found) / len(found)


def test_a_run_looks_at_three_figures_before_and_on_the_way(unit):
    found = run_arm(unit, Cell("magnitude", 0.5), learning_rate=1e-3, steps=3)
    assert [look["step"] for look in found["trajectory"]] == [0, 1, 2, 3]
    assert all(set(look) == {"step", "retain", "forget", "heldout"} for look in found["trajectory"])
    start = found["trajectory"][0]
    model = load_model(unit.run.models.base)
    assert start["forget"] == pytest.approx(probability(model, unit, lambda r: r.prompt), rel=1e-4)
    asked = probability(model, unit, lambda r: r.paraphrased_prompt)
    assert start["heldout"] == pytest.approx(asked, rel=1e-4)
    assert found["trajectory"][-1]["forget"] < start["forget"]
    assert found["stopped"] is None
    assert found["learning_rate"] == 1e-3


def test_arms_start_alike_and_move_as_many_weights_as_they_may(unit):
    total = sum(p.numel() for p in load_model(unit.run.models.base).parameters())
    one = run_arm(unit, Cell("random", 0.5), learning_rate=1e-3, steps=1)
    other = run_arm(unit, DENSE, learning_rate=1e-3, steps=1)
    assert one["trajectory"][0] == other["trajectory"][0]
    assert (one["selected"], other["selected"]) == (total // 2, total)


def test_tuning_never_sees_the_paraphrased_questions(unit, monkeypatch):
    monkeypatch.setattr(runs, "heldout_tokens", None)  # a call would fail
    found = run_arm(unit, DENSE, learning_rate=1e-3, steps=1, tuning=True)
    assert all(set(look) == {"step", "retain", "forget"} for look in found["trajectory"])


def test_a_run_that_diverges_is_kept_up_to_its_last_look(unit, monkeypatch):
    def diverges(_, model, *__, on_step, evaluate, **___):
        shown = {"retain.probability": 0.5, "forget.probability": 0.4}
        on_step({"step": 0, **shown, **evaluate(model)})
        on_step({"step": 1, "forget_nll": 3.0})  # a step that is not looked at
        raise TrainingStopped("the loss is nan at step 2; lower the learning rate")

    monkeypatch.setattr(runs, "unlearn_with", diverges)
    found = run_arm(unit, DENSE, learning_rate=1.0, steps=3)
    assert found["stopped"] == "the loss is nan at step 2; lower the learning rate"
    assert [look["step"] for look in found["trajectory"]] == [0]
    assert read_run(found, "forget") == (0.4, True, 0)


def test_a_figure_that_is_not_finite_ends_the_trajectory(unit, monkeypatch):
    def overflows(*_, on_step, **__):
        for step, value in enumerate([0.5, math.nan]):
            on_step({"step": step, "retain.probability": value, "forget.probability": value})

    monkeypatch.setattr(runs, "unlearn_with", overflows)
    found = run_arm(unit, DENSE, learning_rate=1.0, steps=3, tuning=True)
    assert "not finite" in found["stopped"]
    assert len(found["trajectory"]) == 1


def test_an_error_that_a_lower_learning_rate_does_not_mend_is_raised(unit, monkeypatch):
    def fails(*_, **__):
        raise WagleError("the records are wrong")

    monkeypatch.setattr(runs, "unlearn_with", fails)
    with pytest.raises(WagleError, match="the records are wrong"):
        run_arm(unit, DENSE, learning_rate=1.0, steps=3)


def test_a_run_is_as_the_recipe_asks_but_without_a_rule_that_ends_it(unit, monkeypatch):
    given = []
    plain = runs.unlearn_with

    def spy(settings, *arguments, **more):
        given.append((settings, more))
        return plain(settings, *arguments, **more)

    monkeypatch.setattr(runs, "unlearn_with", spy)
    run_arm(unit, DENSE, learning_rate=2e-3, steps=2)
    ((settings, more),) = given
    decided = {
        "learning_rate": 2e-3,
        "max_steps": 2,
        "stop_when": [],
        "best": None,
        "check_every": 1,
        "evaluate_every": 1,
    }
    assert settings == unit.run.recipe.unlearning.model_copy(update=decided)
    assert "reference" not in more


def test_a_trial_ends_where_its_figure_is_read_and_reads_what_the_whole_run_reads(unit):
    asked = {"learning_rate": 3e-2, "steps": 6}
    trial, whole = run_arm(unit, DENSE, **asked, tuning=True), run_arm(unit, DENSE, **asked)
    assert len(trial["trajectory"]) < len(whole["trajectory"])
    assert trial["stopped"] is None
    assert read_run(trial, "forget") == read_run(whole, "forget")


def test_lora_trains_an_adapter_that_starts_as_the_model_itself(unit):
    pytest.importorskip("peft")
    found = run_arm(unit, Cell("lora", None), learning_rate=1e-2, steps=2)
    dense = run_arm(unit, DENSE, learning_rate=1e-3, steps=1)
    # rank 8, two blocks: q and o 32 + 32, k and v 32 + 16, gate, up and down 32 + 48
    assert found["selected"] == 2 * 8 * (2 * 64 + 2 * 48 + 3 * 80)
    start = found["trajectory"][0]
    assert start == pytest.approx(dense["trajectory"][0], rel=1e-5)
    assert found["trajectory"][-1]["forget"] < start["forget"]


def test_lora_has_the_rank_and_the_layers_that_the_recipe_gives_it(unit):
    pytest.importorskip("peft")
    own = replace(unit, lora=Lora(rank=2, alpha=4, targets=["q_proj", "v_proj"]))
    found = run_arm(own, Cell("lora", None), learning_rate=1e-2, steps=1)
    assert found["selected"] == 2 * 2 * ((32 + 32) + (32 + 16))


def test_the_reference_is_the_model_before_it_was_taught(unit):
    found = look_at_reference(unit)
    model = load_model(unit.run.models.start)
    assert found == pytest.approx(
        {
            "forget": probability(model, unit, lambda r: r.prompt),
            "heldout": probability(model, unit, lambda r: r.paraphrased_prompt),
        },
        rel=1e-4,
    )


@pytest.mark.parametrize(
    ("unlearning", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"epochs": 5, "batch_size": 4}, 8),  # 30 records, 4 a step
        ({"epochs": 5, "batch_size": 4, "accumulation": 2}, 4),
        ({"epochs": 5, "batch_size": 4, "anchor": "retain"}, 10),  # 8 retain records
    ],
)
def test_the_steps_of_a_run_are_those_of_the_recipe(tiny_recipe, tmp_path, unlearning, steps):
    from wagle.run.opening import Run

    assert count_steps(Run(tmp_path, tiny_recipe(unlearning=unlearning))) == steps


def test_records_without_a_paraphrase_are_left_out_and_none_at_all_is_an_error(unit, monkeypatch):
    assert len(heldout_tokens(unit.run)) == 6
    plain = [Record("qa", prompt=r.prompt, answer=r.answer) for r in unit.run.inputs.need("forget")]
    sets = {**unit.run.inputs.sets, "forget": [*unit.run.inputs.need("forget")[:2], *plain[2:]]}
    monkeypatch.setitem(unit.run.inputs.__dict__, "sets", sets)
    assert len(heldout_tokens(unit.run)) == 2
    monkeypatch.setitem(unit.run.inputs.__dict__, "sets", {**sets, "forget": plain})
    with pytest.raises(WagleError, match="add the field paraphrased_question"):
        heldout_tokens(unit.run)
