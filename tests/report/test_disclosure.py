"""What of a recipe others may see."""

from __future__ import annotations

from wagle.recipe.reading import load_recipe
from wagle.report.disclosure import public, public_recipe


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
