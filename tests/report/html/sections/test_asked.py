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
