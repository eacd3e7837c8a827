"""Whatever a config holds, it is a recipe or an error of one line."""

from __future__ import annotations

import math

import pytest
from bench.published import OPEN_UNLEARNING, SOUL, WAGLE

from wagle.recipe.published.dotted import leaves, put
from wagle.recipe.published.imported import Notes
from wagle.recipe.published.open_unlearning.composing import compose
from wagle.recipe.published.open_unlearning.recipe import import_words
from wagle.recipe.published.wagle_code.keys import KEYS
from wagle.recipe.published.wagle_code.recipe import import_config
from wagle.recipe.reading import load_recipe
from wagle.system.errors import WagleError

WORDS = ["null", "3", "-1", "0", "[]", "{}", "x", "true", "1e400", ".nan", "[1, 2]", "{a: 1}"]
WORDS += ["'???'", "${task_name}", "1.5", ""]
VALUES = [None, 3, -1, 0, [], {}, "x", True, math.inf, math.nan, [1], {"a": 1}, 1.5, ""]


def keys_of(data):
    """Every key of a nested mapping, sections included."""
    parts = [key.split(".") for key, _ in leaves(data)]
    return sorted({".".join(one[: i + 1]) for one in parts for i in range(len(one))})


def taken(make):
    """Whether a recipe came of it; an error must be one line."""
    said = ""
    try:
        made = make()
        load_recipe(made.recipe)
    except WagleError as error:
        said = str(error)
    assert "\n" not in said
    return not said


@pytest.mark.parametrize("line", OPEN_UNLEARNING)
def test_every_key_of_open_unlearning_may_hold_anything(line):
    words = line.split()
    keys = keys_of(compose(words, lambda _: None, Notes()).config)
    found = [
        taken(lambda more=more: import_words([*words, more], corrected=True))
        for key in keys
        for more in (f"~{key}", *(f"{key}={value}" for value in WORDS))
    ]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize("name", [*WAGLE, *SOUL])
def test_every_key_of_a_published_file_may_hold_anything(name):
    config = (WAGLE | SOUL)[name]
    known = {key for table in KEYS.values() for key in table}
    found = [
        taken(lambda key=key, value=value: import_config([("a", put(config, key, value))]))
        for key in sorted({*keys_of(config), *known})
        for value in VALUES
    ]
    assert any(found)
    assert not all(found)
