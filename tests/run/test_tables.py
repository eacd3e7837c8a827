"""The names that the settings page lists: all of them, from their tables, none by hand."""

import re

import pytest

from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.candidates import SHORT_NAMES
from wagle.attribution.scoring.scores import SCORES
from wagle.recipe.page import fill_names, sections_of_page, settings_page
from wagle.recipe.sections.attribution import Attribution
from wagle.run.tables import setting_names

NAMES = setting_names()
TEXTS = {
    f"{title}: {name}": field.description or ""
    for title, section in sections_of_page()
    for name, field in section.model_fields.items()
}
BETWEEN = r"(?:, | or | and |, or |, and )"


def by_hand(text):
    """Tables of which a text lists three names or more itself."""
    for table, names in NAMES.items():
        name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        if re.search(rf"(?<![\w+])(?:(?:{name}){BETWEEN}){{2}}(?:{name})(?![\w+])", text):
            yield table


def test_every_placeholder_has_its_table_and_every_table_its_place():
    used = {name for text in TEXTS.values() for name in re.findall(r"\{([a-z_0-9]+)\}", text)}
    assert used == set(NAMES)
    assert all(NAMES.values())


def test_the_page_is_filled():
    page = settings_page(NAMES)
    assert not re.search(r"\{[a-z_0-9]+\}", page)
    for names in NAMES.values():
        assert ", ".join(names) in page


@pytest.mark.parametrize("key", TEXTS)
def test_no_text_lists_the_names_of_a_table_by_hand(key):
    assert not list(by_hand(" ".join(TEXTS[key].split())))


def test_a_list_by_hand_is_seen():
    assert list(by_hand("Which: loss, zlib, min_k or min_k++.")) == ["membership_attacks"]
    assert list(by_hand("One of wagle, fisher, wanda.")) == ["scores"]
    assert not list(by_hand("min_k and min_k++ look at, as wanda and fisher"))


def test_the_recipe_names_every_score_short_name_and_quantity():
    fields = Attribution.model_fields
    for table, field in (
        (SCORES, "score"),
        (SHORT_NAMES, "include"),
        (COLLECTED, "quantities"),
    ):
        text = fill_names(fields[field].description or "", NAMES)
        assert all(name in text for name in table), field
