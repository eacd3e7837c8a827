"""What of a recipe others may see."""

from __future__ import annotations

import pytest

from wagle.recipe.reading import load_recipe
from wagle.report.disclosure import Shortener, last, public, public_recipe


def test_what_is_given_record_by_record_is_counted_and_not_shown():
    settings = {"limit": 3, "groups": {"forget[0]": "Ada", "forget[1]": "Bo"}}
    assert public(settings) == {"limit": 3, "groups": "of 2 records"}
    assert public(public(settings)) == public(settings)
    recipe = {
        "name": "trial",
        "model": "demo",
        "forget": "demo:forget",
        "attacks": [{"name": "probe", "settings": settings}],
    }
    hidden = public_recipe(load_recipe(recipe))
    assert hidden.attacks[0].settings == public(settings)
    shown = load_recipe({**recipe, "report": {"show_text": True}})
    assert public_recipe(shown).attacks[0].settings == settings


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/alice/models/llama/", "llama"),
        ("models\\llama", "llama"),
        ("demo", "demo"),
        ("/", "/"),
    ],
)
def test_of_a_path_the_last_part_stays(path, name):
    assert last(path) == name


def shortener(**more):
    recipe = {"name": "trial", "model": "demo", "forget": "demo:forget"}
    return Shortener(load_recipe({**recipe, **more}))


def test_a_path_of_the_recipe_is_cut_even_where_it_holds_blanks():
    short = shortener(forget="/home/alice/my private/people.jsonl")
    said = short("read /home/alice/my private/people.jsonl twice")
    assert said == "read …/people.jsonl twice"


def test_the_longest_of_two_paths_of_the_recipe_is_cut_first():
    short = shortener(model="/srv/a b", forget="/srv/a b/forget set.jsonl")
    assert short("/srv/a b/forget set.jsonl of /srv/a b") == "…/forget set.jsonl of …/a b"


def test_all_sources_of_a_list_are_cut():
    short = shortener(retain={"source": ["/srv/x y/one.jsonl", "/srv/x y/two.jsonl"]})
    assert short("/srv/x y/one.jsonl, /srv/x y/two.jsonl") == "…/one.jsonl, …/two.jsonl"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see /tmp/run/model for it", "see …/model for it"),
        ("see ~/run/model", "see …/model"),
        ("see C:\\Users\\alice\\model", "see …/model"),
        ("12/24 records, and/or none", "12/24 records, and/or none"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("runs/demo/model", "runs/demo/model"),  # relative: it tells no home
        ("a /tmp alone", "a /tmp alone"),
        ("('/tmp/run/model')", "('…/model')"),
    ],
)
def test_what_looks_like_an_absolute_path_is_cut_and_nothing_else(text, shown):
    assert shortener()(text) == shown
