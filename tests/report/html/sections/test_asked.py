"""The section of what was asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.pages import (
    RECIPE,
    full,
    text,
)
from wagle.recipe.reading import load_recipe
from wagle.report.html.rendering import render
from wagle.report.html.sections.asked import asked


def test_what_was_asked_names_objective_score_ratio_stop_rule_and_seed(html):
    shown = text(html)
    assert "npo (beta 0.1, retain_weight 10)" in shown
    assert "wagle (gamma 0.25), gamma chosen by auto" in shown
    assert "0.3 of the candidate weights" in shown
    assert "reaches the reference's (0.210)" in shown.replace("&#39;", "'")
    assert "stopped at step 3: the reference was reached" in shown
    assert "Seed 5" in shown
    assert "take 10%" in shown


@pytest.mark.parametrize("meets", [True, False])
def test_the_step_that_was_kept_is_named_with_its_rule_and_whether_it_meets_that(meets):
    page = full()
    unlearning = page.recipe.unlearning.model_copy(update={"best": "auto"})
    best = {"step": 2, "figures": {}, "meets": meets}
    state = {**page.state, "unlearn": {**page.state["unlearn"], "best": best}}
    recipe = page.recipe.model_copy(update={"unlearning": unlearning})
    shown = text(render(replace(page, recipe=recipe, state=state)))
    said = "the model is that of step 2, min forget.extraction_strength where retain.probability"
    assert said in shown
    assert ("(no step met this condition)" in shown) is not meets


def test_a_ladder_names_the_ratio_that_was_trained():
    page = full()
    recipe = load_recipe({**RECIPE, "attribution": {"ratio": [0.1, 0.3], "use": 0.3}})
    mask = {**page.state["mask"], "ratios": [0.1, 0.3]}
    found = render(replace(page, recipe=recipe, state={**page.state, "mask": mask}))
    assert "0.3 of the candidate weights, of the ladder 0.1, 0.3" in found


def facts(state=None, **changes):
    """The terms of the section for a small recipe, after the stages of ``state``."""
    recipe = load_recipe({"name": "t", "model": "demo", "forget": "demo:forget", **changes})
    page = replace(full(), recipe=recipe, state=state or {}, evaluations={})
    return asked(page).context["asked"]


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (None, "none: without a model that never learned the forget set, nothing can be conc"),
        ("untaught", "untaught: the model before it was taught"),
        ("/home/alice/kept", "kept: a model that never learned the forget set"),
    ],
)
def test_a_reference_is_told_by_what_it_is_and_never_by_its_path(reference, said):
    more = {"finetune": {}} if reference == "untaught" else {}
    assert facts(reference=reference, **more)["Reference"].startswith(said)


def test_the_length_of_training_is_told_in_epochs_or_in_steps():
    own = {"batch_size": 3, "accumulation": 4, "learning_rate": 2e-5, "optimizer": "SGD"}
    said = facts(unlearning={**own, "epochs": 7})["Training"]
    assert said.startswith("7 epochs, 12 records a step, SGD, learning rate 2e-05 (")
    assert facts(unlearning={**own, "max_steps": 9})["Training"].startswith("9 steps, 12 records")


def test_an_adapter_stands_in_the_place_of_a_mask_and_beside_it_where_it_is_masked():
    lora = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
    found = facts(unlearning={"lora": lora})
    said = "LoRA of rank 4, alpha 8, on q_proj, v_proj, then merged"
    assert found["Adapter"] == said
    assert "Score" not in found
    masked = facts(unlearning={"lora": {**lora, "masked": True}}, attribution={"ratio": 0.25})
    assert masked["Adapter"] == said
    assert masked["Ratio"] == "0.25 of the candidate weights"


def test_where_all_weights_train_the_reason_stands_in_the_place_of_the_score():
    found = facts({"mask": {"skipped": "all of them, for a reason"}})
    assert found["Weights"] == "all of them, for a reason"
    assert "Score" not in found
    assert "Ratio" not in found


def test_a_mask_from_a_file_is_named_without_its_folder():
    found = facts(attribution={"mask": "/home/alice/mask.safetensors"})
    assert found["Score"].endswith(", from the mask mask.safetensors")
    assert found["Ratio"] == "that of the mask"


@pytest.mark.parametrize(
    ("unlearning", "state", "said"),
    [
        ({"stop_when": []}, {}, "the end of training"),
        ({}, {}, "the end of training"),  # auto, but there is no reference
        (
            {"stop_when": ["forget.nll >= 3", "retain.nll >= 2"]},
            {},
            "when forget.nll >= 3 or retain.nll >= 2, or the end of training",
        ),
        (
            {"stop_when": []},
            {"steps": 1200, "stopped": "end"},
            "the end of training; stopped at step 1,200: the end of training",
        ),
        (
            {"stop_when": ["forget.nll >= 3"]},
            {"steps": 3, "stopped": "forget.nll >= 3"},
            "when forget.nll >= 3, or the end of training; stopped at step 3: forget.nll >= 3",
        ),
    ],
)
def test_the_stop_rule_is_told_and_what_stopped_the_run(unlearning, state, said):
    assert facts({"unlearn": state}, unlearning=unlearning)["Stop rule"] == said


def test_a_set_is_told_with_its_role_its_sources_and_what_was_cut_of_it():
    recipe = load_recipe(
        {
            "name": "t",
            "model": "demo",
            "forget": {"source": ["/home/alice/one.jsonl", "/home/alice/two.jsonl"], "take": 5},
            "general": {"source": "/home/alice/data", "split": "test", "rows": "0:9"},
        }
    )
    rows = asked(replace(full(), recipe=recipe)).context["sets"]
    assert [row["source"] for row in rows] == [
        "one.jsonl + two.jsonl, take 5",
        "data, split test, rows 0:9",
    ]
    assert [row["role"] for row in rows] == [
        "must go",
        "general knowledge; unlearning never saw it",
    ]
    assert [(row["name"], row["n"]) for row in rows] == [("forget", 4), ("general", 4)]
    alone = replace(full(), recipe=recipe, evaluations={})
    assert [row["n"] for row in asked(alone).context["sets"]] == [None, None]
