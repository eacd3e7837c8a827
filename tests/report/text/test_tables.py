"""Aligned lines: nothing is wrapped, cut, coloured or read as markup."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wagle.report.text.tables import aligned, facts


def test_columns_begin_below_one_another_and_numbers_end_so():
    rows = [["name", "n", "why"], ["a", "1,000", "x"], ["longer", "7", ""]]
    assert aligned(rows, right={1}) == [
        "name        n  why",
        "a       1,000  x",
        "longer      7",
    ]


def test_a_column_is_at_least_as_wide_as_it_is_told_and_the_gap_too():
    assert aligned([["a", "b"]], least={0: 4}, gap=1) == ["a    b"]


def test_no_rows_are_no_lines():
    assert aligned([]) == []


def test_a_wide_character_takes_two_columns():
    assert aligned([["漢字", "x"], ["abcd", "y"]]) == ["漢字  x", "abcd  y"]


def test_brackets_and_colons_are_text():
    row = ["[bold]b[/bold]", "[0.1, 0.2]", ":smile:"]
    assert aligned([row]) == ["  ".join(row)]


@pytest.mark.parametrize("columns", [20, 80, 100, 120])
def test_no_terminal_wraps_cuts_or_colours_a_table(columns, monkeypatch):
    for name, value in (("COLUMNS", str(columns)), ("FORCE_COLOR", "1"), ("TTY_COMPATIBLE", "1")):
        monkeypatch.setenv(name, value)
    rows = [[f"{'a long name ' * 9}.", *[f"{n}.123 [0.001, 0.999]" for n in range(9)]]] * 2
    assert aligned(rows) == ["  ".join(rows[0])] * 2


def test_facts_have_their_titles_in_a_column_and_more_lines_below():
    assert facts([("score", "wagle"), ("", "more"), ("candidates", "3")]) == [
        "score        wagle",
        "             more",
        "candidates   3",
    ]


def test_rich_is_imported_when_a_table_is_printed_and_not_before():
    code = (
        "import sys, wagle.report.text.tables as t; assert 'rich' not in sys.modules; "
        "t.aligned([['a']]); assert 'rich' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
