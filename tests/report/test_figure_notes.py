"""What stands beside figures: of how many records they are, and their notes, each once."""

from __future__ import annotations

import pytest

from wagle.evaluation.figures import Figure
from wagle.report.figure_notes import notes, other_count


def figure(count: int = 4, note: str | None = None) -> Figure:
    return Figure(0.5, None, "none", note=note, count=count)


@pytest.mark.parametrize(
    ("counts", "records", "said"),
    [
        ([4, 4], 4, ""),
        ([3, 3], 4, "3"),
        ([1234], 4, "1,234"),
        ([4, 3], 4, "3 or 4"),  # two models, of which one lacks an answer
        ([4], None, "4"),
        ([], 4, ""),
    ],
)
def test_a_number_of_records_is_told_where_it_is_not_that_of_the_set(counts, records, said):
    found = {f"model {i}": figure(count) for i, count in enumerate(counts)}
    assert other_count(found, records) == said


def test_a_note_of_all_models_names_the_figure_alone_and_one_of_some_names_these():
    rows = [
        ("forget.a", {"before": figure(note="wide"), "after": figure(note="wide")}),
        ("forget.b", {"before": figure(note="wide"), "after": figure()}),
        ("forget.c", {"after": figure()}),
    ]
    assert notes(rows) == {"wide": "forget.a, forget.b (before)"}


def test_two_models_with_a_note_each_have_both():
    rows = [("forget.a", {"before": figure(note="one"), "after": figure(note="two")})]
    assert notes(rows) == {"one": "forget.a (before)", "two": "forget.a (after)"}


@pytest.mark.parametrize(
    ("count", "said"), [(3, "a0, a1, a2"), (4, "a0, a1, a2 and 1 more"), (1, "a0")]
)
def test_a_note_names_three_figures_and_counts_the_rest(count, said):
    rows = [(f"a{i}", {"after": figure(note="wide")}) for i in range(count)]
    assert notes(rows) == {"wide": said}


def test_a_figure_that_comes_twice_is_named_once():
    row = ("forget.a", {"after": figure(note="wide")})
    assert notes([row, row]) == {"wide": "forget.a"}


def test_no_figures_have_no_notes():
    assert notes([]) == {}
    assert notes([("forget.a", {}), ("forget.b", {"after": figure(note="")})]) == {}
