"""What several sections read off a page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.pages import RECIPE, bare, full
from wagle.evaluation.verdict import INCONCLUSIVE, NO_LEAK
from wagle.recipe.reading import load_recipe


def test_sets_that_must_stay_are_neither_forgotten_nor_held_out():
    page = full()
    figures = page.evaluations["after"].figures
    for name in ("overall", "forgotten", "holdout"):
        figures[name] = figures["retain"]
    assert page.kept == ["retain", "general"]
    assert page.measured == ["forget", "retain", "general", "holdout", "overall", "forgotten"]


def test_a_figure_is_that_of_every_model_that_has_it_in_the_order_of_the_roles():
    page = full()
    del page.evaluations["before"].figures["retain"]
    assert {r: f.value for r, f in page.figures("retain", "probability").items()} == {
        "after": 0.6,
        "reference": 0.5,
    }
    assert page.figures("nothing", "probability") == {}
    assert page.goal.value == 0.21
    assert bare().goal is None


def test_records_are_counted_as_the_run_did_or_by_its_figures():
    page = full()
    assert page.count("retain") == 1234
    page.evaluations["after"].figures["own"] = page.evaluations["after"].figures["forget"]
    assert page.count("own") == 4
    assert page.count("nothing") is None


@pytest.mark.parametrize(
    ("asked", "mask", "ratio"),
    [
        ({"ratio": 0.3}, {}, 0.3),
        ({"ratio": [0.1, 0.3], "use": 0.3}, {"ratios": [0.1, 0.3]}, 0.3),
        ({"mask": "m.safetensors"}, {}, None),
        ({"mask": "m.safetensors"}, {"ratios": [0.2]}, 0.2),
    ],
)
def test_the_ratio_that_was_trained_is_told_where_it_can_be(asked, mask, ratio):
    recipe = load_recipe({**RECIPE, "attribution": asked})
    assert replace(full(), recipe=recipe, state={"mask": mask}).ratio == ratio


def test_without_a_verdict_nothing_is_concluded():
    assert full().verdict == NO_LEAK
    assert replace(full(), state={}).verdict == INCONCLUSIVE
