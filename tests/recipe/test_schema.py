"""The schema of recipes accepts what wagle accepts and names what it refuses."""

from __future__ import annotations

import jsonschema
import pytest

from wagle.recipe.reading import ready_recipes, ready_texts
from wagle.recipe.recipe import Recipe
from wagle.recipe.schema import recipe_schema
from wagle.recipe.syntax import parse_yaml
from wagle.run.tables import setting_names

SCHEMA = recipe_schema(setting_names())
SHORT = {"name": "x", "model": "demo", "forget": "demo:forget", "attribution": None}


@pytest.mark.parametrize("name", ready_recipes())
def test_every_ready_recipe_fits_the_schema_and_names_it(name):
    text = ready_texts()[name]
    assert "\n# yaml-language-server: $schema=recipe.schema.json\n" in text
    jsonschema.validate(parse_yaml(text, name), SCHEMA)


def test_short_forms_and_empty_sections_fit():
    jsonschema.validate(SHORT, SCHEMA)
    jsonschema.validate({**SHORT, "evaluation": {"benchmarks": ["mmlu"]}}, SCHEMA)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attribution": {"ratoi": 0.5}},
        {"model": 3},
        {"unlearning": {"epochs": "many"}},
        {"unlearning": {"wrapper": "sma"}},
        {"name": None},
        {"sead": 1},
    ],
)
def test_what_a_recipe_cannot_say_does_not_fit(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**SHORT, **wrong}, SCHEMA)


def test_the_schema_says_what_every_setting_means_with_the_names_that_it_may_have():
    assert set(SCHEMA["properties"]) == set(Recipe.model_fields)
    asked = SCHEMA["$defs"]["Unlearning"]["anyOf"][0]["properties"]["objective"]["description"]
    assert "npo" in asked
    assert "{objectives}" not in str(SCHEMA)
