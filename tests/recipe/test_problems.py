"""What is wrong with a recipe, in one line: places, words and hints, piece by piece."""

import pytest
from pydantic import ValidationError

from wagle.recipe.problems import _dotted, _keys, _Order, _unknown, explain
from wagle.recipe.recipe import Recipe


def said(data):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    return explain(caught.value, data)


@pytest.mark.parametrize(
    ("loc", "key"),
    [
        (("attribution", "ratio"), "attribution.ratio"),
        (("evaluation", "benchmarks", 2, "name"), "evaluation.benchmarks[2].name"),
        ((3, "x"), "[3].x"),
        (("settings", "a", "[key]"), "settings.a"),
        ((), ""),
    ],
)
def test_a_key_is_dotted_with_its_places_in_lists(loc, key):
    assert _dotted(loc) == key


def test_problems_are_in_the_order_of_the_document_and_what_is_missing_comes_last():
    data = {"b": {"y": 1, "x": 2}, "a": [0, {"z": 1}]}
    assert _Order().of(("b", "x"), data) == [0, 1]
    assert _Order().of(("a", 1, "z"), data) == [1, 1]  # a list's items have no keys below
    assert _Order().of(("b", "none"), data) == [0, 2]
    assert _Order().of(("none", "x"), data) == [2]
    ordered = [("b", "y"), ("b", "x"), ("b", "none"), ("a", 0), ("a", 1), ("none",)]
    assert sorted(ordered, key=lambda loc: _Order().of(loc, data)) == ordered


def test_the_first_problem_of_the_document_is_told_and_the_rest_are_counted():
    bad = {"name": "a", "unlearning": {"learning_rate": -1}, "model": 3}
    assert said(bad) == ("unlearning.learning_rate is -1; it must be above 0 (and 1 more)")
    turned = {"name": "a", "model": 3, "unlearning": {"learning_rate": -1}}
    assert said(turned) == (
        "model is 3; it must be a section: settings with their values (and 1 more)"
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"model": {}}, "model.path is missing; every model needs it"),
        ({"forget": {"take": 3}}, "forget.source is missing; every set of records needs it"),
        ({"name": 2024}, "name is 2024; it must be text, so put it in quotes"),
        ({"name": ["x"]}, "name is ['x']; it must be text"),
        ({"seed": "one"}, "seed is 'one'; it must be a whole number"),
        ({"retain": {"source": "a", "split": ""}}, "retain.split is ''; it must not be empty"),
    ],
)
def test_a_problem_is_one_line_in_our_words(more, line):
    assert said({"name": "a", "model": "demo", **more}) == line


def test_a_missing_name_is_what_every_recipe_needs():
    assert said({"model": "demo"}) == "name is missing; every recipe needs it"


@pytest.mark.parametrize(
    ("loc", "line"),
    [
        (
            ("attribution", "ratoi"),
            "attribution.ratoi is not a setting; nearest: attribution.ratio",
        ),
        (("forget", "sourse"), "forget.sourse is not a setting; nearest: forget.source"),
        (("zzzzzzzz",), "zzzzzzzz is not a setting"),
        (("model", "ratio"), "model.ratio is not a setting; nearest: attribution.ratio"),
    ],
)
def test_an_unknown_setting_names_the_nearest_of_its_section_first(loc, line):
    assert _unknown(loc) == line


def test_every_key_of_a_recipe_is_listed_once_with_its_sections():
    keys = list(_keys())
    assert len(keys) == len(set(keys))
    assert {"name", "model", "model.path", "forget.source", "attribution.ratio"} <= set(keys)
    for key in keys:
        parent = key.rpartition(".")[0]
        assert not parent or parent in keys
