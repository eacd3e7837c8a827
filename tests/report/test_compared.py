"""What a comparison found, as rows of arms and as notes."""

from __future__ import annotations

from typing import Any

import pytest

from wagle.report.compared import comparison_notes, comparison_rows, shown_ratios


def arm(name: str, ratio: float | None, **changes: Any) -> dict[str, Any]:
    return {
        "name": name if ratio is None else f"{name}@{ratio:g}",
        "arm": name,
        "ratio": ratio,
        "selected": 1234,
        "learning_rate": 1.5e-5,
        "edge": False,
        "mean": 0.25,
        "at_least": False,
        "over": False,
        "units": [{"stopped": None}, {"stopped": None}],
        **changes,
    }


def difference(name: str, ratio: float, **changes: Any) -> dict[str, Any]:
    return {
        "arm": name,
        "ratio": ratio,
        "mean": -0.125,
        "interval": (-0.25, 0.0),
        "p": 0.01,
        "holm": 0.02,
        "smallest": 0.0625,
        "bound": "",
        "without_unit_0": {"mean": -0.5, "interval": (-0.75, -0.25)},
        **changes,
    }


def comparison(*more: dict[str, Any], **changes: Any) -> dict[str, Any]:
    arms = [arm("wagle", 0.5), arm("random", 0.5), arm("dense", None), *more]
    found = {"arms": arms, "differences": [], "share": 0.95, "forget_set_varies": True}
    return {**found, **changes}


def test_the_ratios_are_those_of_the_control_alone():
    found = comparison(arm("wagle", 0.1), arm("random", 0.2))
    assert shown_ratios(found) == [0.5, 0.2]


def test_a_row_has_the_figures_of_the_arm_and_of_its_difference_at_that_ratio():
    differences = [difference("wagle", 0.5), difference("wagle", 0.2, mean=9.0)]
    rows = comparison_rows(comparison(differences=differences), 0.5)
    assert rows[0] == {
        "name": "wagle",
        "selected": "1,234",
        "learning_rate": "1.5e-05",
        "figure": "0.250",
        "difference": "-0.125",
        "interval": "[-0.250, +0.000]",
        "holm": "0.020",
        "smallest": "0.062",
        "rest": "-0.500 [-0.750, -0.250]",
    }


def test_what_has_no_ratio_stands_at_every_ratio_and_another_ratio_at_its_own():
    found = comparison(arm("random", 0.2))
    assert [row["name"] for row in comparison_rows(found, 0.5)] == ["wagle", "random", "dense"]
    assert [row["name"] for row in comparison_rows(found, 0.2)] == ["dense", "random"]


def test_the_control_has_no_difference_to_itself():
    (row,) = [r for r in comparison_rows(comparison(), 0.5) if r["name"] == "random"]
    assert [row[key] for key in ("difference", "interval", "holm", "smallest", "rest")] == [""] * 5


def test_one_unit_has_a_difference_and_nothing_else():
    nothing = {"interval": None, "p": None, "holm": None, "smallest": None}
    one = difference("wagle", 0.5, **nothing, without_unit_0=None)
    row = comparison_rows(comparison(differences=[one]), 0.5)[0]
    assert row["difference"] == "-0.125"
    assert [row[key] for key in ("interval", "holm", "smallest", "rest")] == [""] * 4


def test_two_units_leave_a_rest_without_an_interval():
    one = difference("wagle", 0.5, without_unit_0={"mean": 0.25, "interval": None})
    assert comparison_rows(comparison(differences=[one]), 0.5)[0]["rest"] == "+0.250"


@pytest.mark.parametrize(
    ("bound", "shown"),
    [("", "-0.125"), ("at most", "≤ -0.125"), ("at least", "≥ -0.125"), ("open", "? -0.125")],
)
def test_a_difference_of_runs_that_ended_early_says_which_way_it_is_open(bound, shown):
    one = difference("wagle", 0.5, bound=bound)
    assert comparison_rows(comparison(differences=[one]), 0.5)[0]["difference"] == shown


def test_an_edge_and_a_figure_that_could_be_lower_are_marked():
    found = comparison(arm("grad", 0.5, edge=True, at_least=True))
    row = comparison_rows(found, 0.5)[-1]
    assert row["learning_rate"] == "1.5e-05 †"
    assert row["figure"] == "≤ 0.250"


def test_an_ordinary_comparison_needs_no_note():
    assert comparison_notes(comparison()) == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"at_least": True},
            "had fallen to 0.95 of before, so the figure is that at its end (grad",
        ),
        ({"edge": True}, "lowest or highest one tried (grad@0.5)"),
        ({"over": True}, "under half of the reference's figure: grad@0.5."),
        (
            {"units": [{"stopped": None}, {"stopped": "diverged"}]},
            "Broke off, so read up to that point: grad@0.5 (unit 1).",
        ),
    ],
)
def test_a_note_names_the_arm_that_it_is_of(more, said):
    (note,) = comparison_notes(comparison(arm("grad", 0.5, **more)))
    assert said in note


def test_the_complement_says_whose_it_is():
    (note,) = comparison_notes(comparison(arm("complement", 0.5)))
    assert note.startswith("complement at a ratio selects all weights that wagle leaves out")


def test_a_missing_dense_run_and_units_of_one_forget_set_are_said():
    found = comparison(forget_set_varies=False)
    found["arms"] = [one for one in found["arms"] if one["arm"] != "dense"]
    assert [note.partition(";")[0].partition(":")[0] for note in comparison_notes(found)] == [
        "There is no dense run to compare the masks with",
        "Every unit forgets the same records",
    ]
