"""The page docs/scores.md."""

from pathlib import Path

from wagle.attribution.scoring.page import scores_page
from wagle.attribution.scoring.scores import SCORES
from wagle.recipe.rules import UNSCORED
from wagle.recipe.sections.attribution import Attribution

PAGE = Path(__file__).parents[3] / "docs" / "scores.md"


def test_the_page_of_scores_is_what_the_table_and_the_docstrings_say():
    assert PAGE.read_text() == scores_page(), "write it again: make pages"


def test_every_score_has_a_row_and_a_section_and_the_recipe_names_the_page():
    page = scores_page()
    for name, entry in SCORES.items():
        assert f"| [`{name}`](#{name}) | " in page
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert len(section.split()) > 5
        row = next(line for line in page.splitlines() if line.startswith(f"| [`{name}`]"))
        assert f"| `{entry.scope}` |" in row
        assert all(f"`{setting}" in row for setting in entry.settings)
    said = Attribution.model_fields["score"].description or ""
    assert "docs/scores.md" in said
    assert all(kind in said for kind in UNSCORED)


def test_what_a_score_needs_and_its_defaults_are_in_its_row():
    rows = scores_page().splitlines()
    assert "| [`magnitude`](#magnitude) | nothing | `global` | none |" in rows
    assert (
        "| [`grad_ratio`](#grad_ratio) | `grad_forget`, `grad_retain` | `global` | `eps: 1e-12` |"
    ) in rows
    assert "| [`wanda`](#wanda) | `input_square` | `row` | none |" in rows
