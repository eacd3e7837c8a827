"""Tables of figures: which rows, of which models, and which way is better."""

from __future__ import annotations

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.report.html.figure_tables import figure_table, ratio, sides


def figure(value: float | None, count: int = 4, **more) -> Figure:
    return Figure(value, None, "none", count=count, **more)


def evaluation(**sets: dict[str, Figure]) -> Evaluation:
    return Evaluation(sets)


def test_a_row_holds_the_models_in_the_order_of_their_roles():
    found = {
        "reference": evaluation(forget={"know": figure(0.1)}),
        "before": evaluation(forget={"know": figure(0.9, unit="share of options")}),
        "another": evaluation(forget={"know": figure(0.5)}),  # no role
    }
    table = figure_table(found, {"forget": [("forget", "know")]}, str)
    (row,) = table["groups"]["forget"]
    assert list(row["figures"]) == ["before", "reference"]
    assert (row["metric"], row["unit"], row["n"]) == ("know", "share of options", "4")


def test_the_set_stands_in_rows_of_several_sets_and_in_the_heading_otherwise():
    found = {"after": evaluation(a={"x": figure(1.0)}, b={"x": figure(2.0)})}
    pairs = [("a", "x"), ("b", "x")]
    table = figure_table(found, {"": pairs, "b": pairs[1:]}, str)
    assert [row["set"] for row in table["groups"][""]] == ["a", "b"]
    assert [row["set"] for row in table["groups"]["b"]] == [""]


def test_paths_in_notes_are_cut_and_figures_named():
    noted = figure(1.0, note="read from /home/alice")
    found = {"after": evaluation(a={"x": noted, "y": noted, "z": figure(1.0)})}
    pairs = [("a", "x"), ("a", "y"), ("a", "z")]
    table = figure_table(found, {"a": pairs}, lambda text: text.replace("/home/alice", "HOME"))
    assert table["notes"] == {"read from HOME": "a.x, a.y"}


def test_no_group_is_an_empty_table():
    assert figure_table({}, {}, str) == {"groups": {}, "notes": {}}


@pytest.mark.parametrize(
    ("direction", "target", "words"),
    [
        ("higher", None, "higher"),
        ("lower", 3, "lower"),
        ("target", 0, "0"),
        ("target", 0.5, "0.5"),
        ("target", "reference", "as the reference"),
        ("target", None, ""),
    ],
)
def test_which_way_is_better_is_a_word_a_number_or_a_model(direction, target, words):
    found = {"after": evaluation(a={"x": figure(1.0, direction=direction, target=target)})}
    table = figure_table(found, {"a": [("a", "x")]}, str)
    assert table["groups"]["a"][0]["better"] == words


@pytest.mark.parametrize(
    ("before", "after", "both", "share"),
    [
        (figure(0.5), figure(0.25), (0.5, 0.25), 0.5),
        (figure(0.0), figure(0.25), (0.0, 0.25), None),  # nothing to keep
        (figure(0.5), figure(0.0), (0.5, 0.0), 0.0),
        (figure(None), figure(0.25), (None, 0.25), None),
        (figure(0.5), figure(None), (0.5, None), None),
        (None, figure(0.25), (None, 0.25), None),
        (figure(0.5), None, (0.5, None), None),
        (None, None, (None, None), None),
    ],
)
def test_a_share_of_before_needs_both_values_and_one_above_0(before, after, both, share):
    found = {role: f for role, f in (("before", before), ("after", after)) if f is not None}
    assert sides(found) == both
    assert ratio(found) == share
