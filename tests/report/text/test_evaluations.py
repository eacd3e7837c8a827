"""Figures of evaluations as lines: values with intervals, paired differences, the verdict."""

from __future__ import annotations

from typing import Any

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.report.text.evaluations import (
    WIDTH,
    entry,
    evaluation_table,
    figure_lines,
    verdict_lines,
)


def found(details: dict[str, Any] | None = None, beside: Any = None, **values: Any) -> Evaluation:
    """Values of the forget set, each within 0.1."""
    figures = {
        name: Figure(v, None if v is None else (v - 0.1, v + 0.1), "bootstrap")
        for name, v in values.items()
    }
    return Evaluation({"forget": figures}, details=details or {}, beside=beside or {})


def test_a_long_text_is_wrapped_below_itself_and_no_word_is_cut():
    lines = entry("verdict", " ".join(["seven77"] * 30))
    assert [line[:13].strip() for line in lines] == ["verdict", "", ""]
    assert {len(line[13:].split()) for line in lines[:-1]} == {11}  # 11 * 8 - 1 = 87 columns
    assert all(len(line) <= WIDTH for line in lines)
    path = "/a/" + "x" * 120
    assert entry("report", path) == [f"report       {path}"]


def test_a_title_without_text_is_one_line():
    assert entry("note", "") == ["note"]


def test_a_verdict_has_a_line_per_reason():
    assert verdict_lines("leaks", ["One.", "Two."]) == [
        "verdict      leaks",
        "             One.",
        "             Two.",
    ]
    assert verdict_lines("no leak found", []) == ["verdict      no leak found"]


def test_a_table_has_a_column_per_model_and_a_dash_where_one_lacks_a_figure():
    models = {
        "before": found(probability=0.75),
        "after": found(probability=0.25, know=0.5),
    }
    assert [line.split() for line in figure_lines(models, "after", everything=True)] == [
        ["value", "[95", "%", "interval]", "before", "after"],
        ["forget.probability", "0.750", "[0.650,", "0.850]", "0.250", "[0.150,", "0.350]"],
        ["forget.know", "-", "0.500", "[0.400,", "0.600]"],
    ]


def test_a_figure_without_a_value_is_a_dash_and_one_without_an_interval_stands_alone():
    model = found(a=None, b=0.5)
    bare = Figure(0.125, None, "none")
    model = Evaluation({"forget": {**model.figures["forget"], "c": bare}})
    rows = [line.split() for line in figure_lines({"after": model}, "after", everything=True)]
    assert rows[1] == ["forget.a", "-"]
    assert rows[3] == ["forget.c", "0.125"]


@pytest.mark.parametrize(
    ("names", "said"), [(("a",), "(1 more figure: --all)"), (("a", "b"), "(2 more figures: --all)")]
)
def test_what_is_left_out_is_counted(names, said):
    model = found(extraction_strength=0.5, **dict.fromkeys(names, 0.25))
    lines = figure_lines({"after": model}, "after", everything=False)
    assert lines[-1] == said
    assert len(lines) == 3  # heads, the figure that leads, the count
    assert said not in figure_lines({"after": model}, "after", everything=True)


def test_own_records_lead_by_probability_and_a_benchmark_by_extraction():
    values = {"probability": 0.5, "truth_ratio": 0.25}
    for name, leads in (("qa", "forget.probability"), ("tofu", "forget.truth_ratio")):
        lines = figure_lines({"after": found({"benchmark": name}, **values)}, "after", False)
        assert [line.split()[0] for line in lines[1:2]] == [leads]


def test_paired_differences_stand_below_with_their_sign_and_only_of_shown_figures():
    details = {
        "changes": {
            "forget.probability": {"mean": -0.5, "interval": [-0.625, -0.375]},
            "forget.hidden": {"mean": 9.0, "interval": None},
        },
        "differences": {"forget.know": {"mean": 0.0625, "interval": (0.0, 0.125)}},
    }
    own = found(details, probability=0.25, know=0.5)
    models = {"before": found(probability=0.75), "after": own, "reference": found(know=0.4)}
    lines = figure_lines(models, "after", everything=True)
    below = lines[lines.index("") + 1 :]
    assert [line.split() for line in below] == [
        ["paired", "difference", "after", "-", "before", "after", "-", "reference"],
        ["forget.probability", "-0.500", "[-0.625,", "-0.375]", "-"],
        ["forget.know", "-", "+0.062", "[+0.000,", "+0.125]"],
    ]


def test_differences_to_a_model_that_is_not_shown_are_left_out():
    gap = {"forget.know": {"mean": 0.0625, "interval": [0.0, 0.125]}}
    lines = figure_lines({"after": found({"differences": gap}, know=0.5)}, "after", True)
    assert not any("paired" in line for line in lines)


def test_a_name_that_leaves_no_room_has_a_line_of_its_own():
    name = "m" * 80
    lines = figure_lines({"after": found(**{name: 0.5})}, "after", everything=True)
    assert lines[1] == f"forget.{name}"
    assert lines[2].split() == ["0.500", "[0.400,", "0.600]"]
    assert lines[2].startswith(" ")


def test_a_result_alone_has_its_figures_and_no_verdict():
    lines = evaluation_table(found({"benchmark": "qa"}, probability=0.5)).splitlines()
    assert lines[0].split()[-1] == "model"
    assert len(lines) == 2


def test_a_result_with_a_verdict_ends_with_it():
    own = found({"verdict": "leaks", "reasons": ["It knows."]}, extraction_strength=0.5)
    assert evaluation_table(own).splitlines()[-2:] == [
        "verdict      leaks",
        "             It knows.",
    ]


def test_the_model_before_stands_first_and_the_reference_last():
    beside = {"reference": found(extraction_strength=0.1), "before": found(extraction_strength=0.9)}
    heads = evaluation_table(found(beside=beside, extraction_strength=0.5)).splitlines()[0]
    assert heads.split()[-3:] == ["before", "model", "reference"]


@pytest.mark.parametrize("probes", [[], [["forget", "extraction_strength"]]])
def test_a_reference_alone_makes_no_verdict_and_that_is_said_where_there_are_probes(probes):
    beside = {"reference": found(extraction_strength=0.1)}
    shown = evaluation_table(found({"probes": probes}, beside, extraction_strength=0.5))
    assert ("none without the model before unlearning" in shown) is bool(probes)
