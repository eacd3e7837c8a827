"""The section of control arms."""

from __future__ import annotations

from dataclasses import replace

from tests.report.attack_files import relearning, sampling
from tests.report.pages import evaluation, figure, full, part, text
from wagle.report.html.page import Arm
from wagle.report.html.rendering import render
from wagle.report.html.sections.controls import control_parts


def test_arms_stand_next_to_the_run_with_figures_and_curves_of_relearning():
    arm = Arm(evaluation(0.3, 0.5), {"relearning": relearning()}, 12, 3, "leaks")
    page = replace(full(), attacks={"relearning": relearning()}, controls={"random": arm})
    found = part(render(page), "controls")
    shown = text("<body>" + found)
    assert "this mask 3,000 3" in shown
    assert "random 12 3 leaks" in shown
    row = "0.200 [0.150, 0.250] 0.300 [0.250, 0.350] 0.210 [0.160, 0.260]"
    assert f"forget.probability {row}" in shown
    assert "forget.probability, step 10 0.500 [0.400, 0.600] 0.500 [0.400, 0.600]" in shown
    assert found.count('<svg role="img"') == 1


def test_without_arms_there_is_no_section():
    assert 'id="controls"' not in render(full())


def own(**attacks) -> Arm:
    return Arm(evaluation(0.2, 0.6), attacks, 3000, 24, "no leak found")


def test_a_figure_that_no_arm_has_has_no_row_even_where_the_reference_has_it():
    reference = evaluation(0.21, 0.5)
    reference.figures["overall"] = {"forget_quality": figure(0.5)}
    found = control_parts(own(), {"random": own()}, reference)
    assert found is not None
    names = [row["name"] for row in found["rows"]]
    assert "overall.forget_quality" not in names
    assert names[0] == "forget.probability"
    assert found["columns"] == ["this mask", "random", "reference"]


def test_without_a_reference_there_is_no_column_of_it():
    found = control_parts(own(), {"random": own(), "dense": own()}, None)
    assert found is not None
    assert found["columns"] == ["this mask", "random", "dense"]
    assert found["legend"] == [
        ("curve-after", "this mask"),
        ("curve-random", "random"),
        ("curve-dense", "dense"),
    ]
    assert all(list(row["figures"]) == found["columns"] for row in found["rows"])


def test_a_row_holds_the_arms_that_have_the_figure():
    arm = own()
    del arm.evaluation.figures["forget"]["rouge_l"]
    found = control_parts(own(), {"random": arm}, None)
    assert found is not None
    rows = {row["name"]: list(row["figures"]) for row in found["rows"]}
    assert rows["forget.rouge_l"] == ["this mask"]
    assert rows["forget.probability"] == ["this mask", "random"]


def test_attacks_without_main_figures_are_left_out_and_only_relearning_has_curves():
    rounding = {**relearning(), "attack": "quantization"}
    found = control_parts(
        own(a=relearning(), b=sampling(), c=rounding), {"random": own(a=relearning())}, None
    )
    assert found is not None
    assert [label for label, _ in found["attacks"]] == ["a", "c"]
    assert [curve["label"] for curve in found["curves"]] == ["a"]
    rows = dict(found["attacks"])["a"]
    assert [row["name"] for row in rows] == [
        "forget.probability, step 0",
        "forget.probability, step 2",
        "forget.probability, step 10",
    ]
    assert list(rows[0]["figures"]) == ["this mask", "random", "reference"]
